"""Bench's own prompts and texts, of many kinds and written for bench.

The first of each are short and take seconds; every fourth of the later texts is long. After a change to any
of them no earlier answer can be compared.
"""

# How many of each every server is asked.
FIRST = 8
PROMPTS = (
    "Why does bread rise? Answer in two sentences.",
    "Write a Python function that returns the second largest number of a list.",
    "A train leaves at 14:35 and arrives at 17:10. How long does it take? Show the steps.",
    "Translate into German: The library closes at eight, but the garden stays open.",
    'Give me a JSON object with the keys "city", "country" and "river" for Vienna.',
    "My neighbour's dog barks all night. Draft a polite note to him.",
    "What is the difference between a virus and a bacterium?",
    "Continue the story: The lighthouse had been dark for nine years when, one evening in March,",
    "How do I get a rusty screw out of an old door?",
    "¿Por qué el mar es salado? Responde en dos frases.",
    "Write a SQL query that counts the orders of each customer in 2023.",
    "A jacket costs 80 euros and is reduced by 15 percent. What does it cost now?",
    "Erkläre in drei Sätzen, wie eine Wärmepumpe funktioniert.",
    "List five things to pack for a week in the mountains in October.",
    "Explique à un enfant pourquoi les feuilles tombent en automne.",
    "What does this do? for i in range(10, 0, -3): print(i)",
    "Summarize in one sentence: The bridge was closed because two of its bolts had cracked in the frost.",
    "Is a tomato a fruit or a vegetable? Give a reason.",
    "Write a short poem about a bicycle that was left in the rain.",
    "Name three inventions of the nineteenth century, each with its year.",
    "Which is heavier, a litre of oil or a litre of water, and why?",
    "Correct the sentence: He don't knows where is the keys.",
    "Make a table of the four seasons with one activity for each.",
    "Two friends argue about who pays for dinner. Write their dialogue in six lines.",
)
TEXTS = (
    "The ferry to the outer islands runs twice a day in summer and once in winter, unless the wind is "
    "stronger than forty knots, when the harbour master hangs a black ball from the mast.",
    "def running_mean(values, width):\n    total = sum(values[:width])\n    yield total / width\n",
    "Die Werkstatt öffnet um sieben Uhr. Wer sein Fahrrad bis neun bringt, kann es am Abend abholen.",
    '{"order": 4711, "customer": {"name": "Ines Ferreira", "city": "Porto"}, "paid": false}',
    "A rectangle of 30 by 20 metres has 600 square metres. A triangle with a base of 20 and a height of 9 "
    "has 90. Together they have 690.",
    "Before you solder the second wire, tin the pad and let it cool. If the joint looks dull or forms a "
    "ball, heat it again and add a little flux.",
    "Q: Which planet has the shortest year?\nA: Mercury. It goes around the Sun in 88 days.\n"
    "Q: Which has the longest day?\nA: Venus.",
    "The committee rejected the appeal on two grounds. First, it had been filed nine days late; secondly, "
    "the new evidence could have been given at the first hearing.",
    "Rain fell for the eleventh day. In the lower town the fire brigade pumped water out of cellars, while "
    "the hotels on the hill complained that nobody came to see the view.",
    "El tren de cercanías llega con doce minutos de retraso. Quien vaya al aeropuerto puede tomar el "
    "autobús siete, que sale delante de la estación.",
    "fn clamp(value: i64, low: i64, high: i64) -> i64 {\n    if value < low {\n        low\n"
    "    } else if value > high {\n        high\n    } else {\n        value\n    }\n}\n",
    "A canal lock is a chamber with a gate at each end. A boat that goes uphill enters at the lower level, "
    "and the lower gates are closed behind it. Then sluices in the upper gates are opened, and water from "
    "the higher part of the canal flows in until the chamber is full. No pump is needed: the water falls, "
    "and the boat rises with it. When both levels are the same, the upper gates open with hardly any "
    "force, and the boat goes on. Each passage costs a chamber of water, about two hundred tons in a narrow "
    "canal, so that engineers of the eighteenth century built reservoirs on the hills before they dug the "
    "canal itself.",
    "| month | rain in mm | wet days |\n| --- | --- | --- |\n| April | 41 | 9 |\n| May | 58 | 11 |\n"
    "| June | 73 | 12 |\n",
    "Avant de partir, fermez les volets et coupez le gaz. La clé se trouve sous le pot de terre, à gauche "
    "de la porte.",
    '"Did you bring the map?" asked Tomas.\n"I thought you had it."\n"Then we follow the river," he said, '
    '"until somebody tells us where we are."',
    "class Shelf:\n"
    '    """Books by their titles, each with the number of copies."""\n\n'
    "    def __init__(self) -> None:\n"
    "        self.copies: dict[str, int] = {}\n\n"
    "    def add(self, title: str, count: int = 1) -> None:\n"
    "        if count < 1:\n"
    '            raise ValueError(f"count must be positive, not {count}")\n'
    "        self.copies[title] = self.copies.get(title, 0) + count\n\n"
    "    def lend(self, title: str) -> bool:\n"
    "        left = self.copies.get(title, 0)\n"
    "        if left == 0:\n"
    "            return False\n"
    "        self.copies[title] = left - 1\n"
    "        return True\n",
    "SELECT city, COUNT(*) AS visits FROM trips WHERE started_at >= '2024-01-01' GROUP BY city HAVING "
    "COUNT(*) > 10 ORDER BY visits DESC;",
    "Sehr geehrte Frau Lindner, vielen Dank für Ihr Angebot vom 3. Mai. Leider ist der Preis höher, als "
    "unser Verein zahlen kann.",
    "A shirt of 40 euros is reduced by 25 percent, so it costs 30. With a coupon of 5 euros it costs 25, "
    "which is 62.5 percent of the first price.",
    "Agent: Good morning, this is the water company. How can I help you?\n"
    "Caller: My bill is three times as high as last year, and nobody has moved in.\n"
    "Agent: I am sorry to hear that. Could you read me the number on your meter?\n"
    "Caller: It says 01874, and it turns, although every tap in the house is closed.\n"
    "Agent: Then there is probably a leak behind the meter. Please close the main valve, wait for half an "
    "hour, and look again.\n"
    "Caller: And if it still turns?\n"
    "Agent: In that case the meter itself is faulty, and we replace it at no charge. I will send somebody "
    "between two and four tomorrow.",
    "2024-03-18 07:42:10 INFO backup started, 3 volumes\n2024-03-18 07:42:55 WARNING volume 2: 14 files "
    "skipped\n2024-03-18 07:43:02 ERROR volume 3: no space left\n",
    "1. Soak the beans overnight.\n2. Fry an onion in oil until it is soft.\n3. Add the beans, a bay leaf "
    "and a litre of water.\n4. Let it simmer for an hour; salt it at the end.",
    "#include <stddef.h>\n\nsize_t count(const char *text, char wanted) {\n    size_t found = 0;\n"
    "    while (*text) found += *text++ == wanted;\n    return found;\n}\n",
    "Als der Uhrmacher am Montag seinen Laden aufschloss, stand die große Uhr im Fenster auf zwanzig nach "
    "vier, obwohl er sie am Samstag aufgezogen hatte. Er öffnete das Gehäuse und fand nichts: keine Feder "
    "war gebrochen, kein Rad verbogen. Erst als er die Lampe näher hielt, sah er das Spinnennetz, das sich "
    "vom Pendel bis zur Rückwand spannte. Er entfernte es vorsichtig mit einem Pinsel, stieß das Pendel "
    "an, und die Uhr ging weiter, als wäre nichts geschehen.",
    "Salt lowers the freezing point of water because its ions get in the way of the crystal. Below about "
    "minus twenty degrees it no longer helps.",
    '<ul class="menu">\n  <li><a href="/home">Home</a></li>\n  <li><a href="/shop">Shop</a></li>\n</ul>\n',
    "The tenant may end this contract at the end of any month with three months' notice in writing. The "
    "deposit is returned within thirty days.",
    "Three friends share a boat for 5 days at 84 euros a day, so the boat costs 5 x 84 = 420 euros. Each "
    "pays 420 / 3 = 140 euros. Fuel is extra: they use 12 litres on each of the first 4 days and 20 litres "
    "on the last, which is 4 x 12 + 20 = 68 litres. At 1.75 euros a litre that is 68 x 1.75 = 119 euros. "
    "One of them paid the fuel alone, so the two others owe her a third each: 119 / 3 = 39.67 euros. "
    "Together with the boat, each of them has then paid 140 + 39.67 = 179.67 euros.",
    "let total = 0;\nfor (const item of cart.items) {\n  total += item.price * item.quantity;\n}\n"
    "console.log(`Total: ${total.toFixed(2)}`);\n",
    "Dear Ms Okafor, the parts that you ordered on Monday were sent today. They should arrive by Friday; "
    "if a box is damaged, please refuse it.",
    '"Whoever wants to see the stars," said the old woman, "must first put out the lamp." So we sat in the '
    "dark and waited.",
    "To put up the shelf, first find the studs behind the wall. Knock along it with your knuckles: where it "
    "sounds dull there is wood, where it sounds hollow there is none. Mark two places at the same height "
    "with a pencil and check them with a level. Drill holes that are a little narrower than the screws and "
    "as deep as they are long. Screw the brackets on, but not yet tight. Lay the board on them, push it "
    "against the wall, and mark from below where its own screws go. Take it down, drill those holes only "
    "half through the board, put it back, and tighten everything. Wait a day before you load it with "
    "books, and look after a week whether a screw has come loose.",
)
