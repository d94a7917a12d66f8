"""Keeps the lines of progress of an install, a download or a preparation."""


class KeptLines(list[str]):
    def line(self, text: str) -> None:
        self.append(text)
