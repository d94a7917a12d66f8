"""Hold plain English words that most tokenizers have as one token each, and so split alike."""

WORDS = """
    about above after again along always because before better between both bring build careful
    change clear close common cover early easy every example family few field find first follow food
    friend garden give good great green group hand heavy help high house keep kind large later learn
    leave light little long look make many morning mother mountain move name near need never night
    number often open order other paper part people place plant point quick quiet reason river round
    school season second seem short simple small sound start still stone story strong summer table
    think three today together town travel tree under until useful visit voice walk warm water
    weather week white window winter without wood word work world write year young
""".split()  # noqa: SIM905 - a list of 120 quoted words reads worse
