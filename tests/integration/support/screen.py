"""A terminal for a program under test: a pseudo-terminal, and what its screen shows."""

import codecs
import fcntl
import os
import pty
import re
import select
import struct
import termios
import time

# CSI sequences, and any one character that is none of theirs.
TOKENS = re.compile(r"\033\[([?\d;]*)([A-Za-z])|(.)", re.DOTALL)


class Screen:
    """As much of a terminal as moectl uses: cursor home, erasing, colours, private modes, lines cut at the edge."""

    def __init__(self, lines, columns):
        self.modes, self.colours = set(), 0
        self.decoder, self.unread = codecs.getincrementaldecoder("utf-8")(), ""
        self.resize(lines, columns)

    def resize(self, lines, columns):
        self.lines, self.columns = lines, columns
        self.cells = [[" "] * columns for _ in range(lines)]
        self.row = self.column = 0

    @property
    def text(self):
        return "\n".join("".join(row).rstrip() for row in self.cells)

    def feed(self, data):
        """Bytes as they come: a character or a sequence may be cut anywhere."""
        text, self.unread = self.unread + self.decoder.decode(data), ""
        cut = text.rfind("\033")
        if cut >= 0 and not re.match(r"\033\[[?\d;]*[A-Za-z]", text[cut:]):
            text, self.unread = text[:cut], text[cut:]
        for arguments, command, character in TOKENS.findall(text):
            if character:
                self.put(character)
            else:
                self.command(arguments, command)

    def put(self, character):
        if character == "\r":
            self.column = 0
        elif character == "\n":
            assert self.row + 1 < self.lines, "the picture scrolls"
            self.row += 1
        elif self.column < self.columns:
            self.cells[self.row][self.column] = character
            self.column += 1

    def command(self, arguments, command):
        if command == "H":
            self.row = self.column = 0
        elif command == "K":
            self.cells[self.row][self.column:] = [" "] * (self.columns - self.column)
        elif command == "J":
            self.cells[self.row][self.column:] = [" "] * (self.columns - self.column)
            for row in self.cells[self.row + 1:] if arguments != "2" else self.cells:
                row[:] = [" "] * self.columns
        elif command in "hl":
            (self.modes.add if command == "h" else self.modes.discard)(arguments)
        elif command == "m":
            self.colours += arguments not in ("", "0")
        else:
            raise AssertionError(f"unknown sequence {arguments!r} {command!r}")


class Program:
    """A program on a terminal of its own."""

    def __init__(self, arguments, env, lines=30, columns=100):
        self.screen, self.status = Screen(lines, columns), None
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            try:
                os.execve(arguments[0], arguments, {"TERM": "xterm", **env})
            finally:
                os._exit(127)
        self.set_size(lines, columns)

    def set_size(self, lines, columns):
        """Tells the program too, by SIGWINCH."""
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, lines, columns):
        self.screen.resize(lines, columns)
        self.set_size(lines, columns)

    def type(self, keys):
        os.write(self.terminal, keys.encode())

    @property
    def echoes(self):
        return bool(termios.tcgetattr(self.terminal)[3] & termios.ECHO)

    @property
    def keeps_output(self):
        """Of what is on its way to the terminal, whether it stays when a key sends a signal."""
        return bool(termios.tcgetattr(self.terminal)[3] & termios.NOFLSH)

    def read(self, seconds):
        if not select.select([self.terminal], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.terminal, 1 << 16)
        except OSError:  # the program has closed its side
            return False
        self.screen.feed(data)
        return bool(data)

    def await_text(self, *words, seconds=60):
        """The screen, once it shows all the words (regular expressions)."""
        deadline = time.monotonic() + seconds
        while not all(re.search(word, self.screen.text) for word in words):
            if time.monotonic() > deadline:
                raise AssertionError(f"{words} are not on the screen:\n{self.screen.text}")
            self.read(0.2)
        return self.screen.text

    def wait(self, seconds=60):
        """The exit status; a signal's number is negative."""
        deadline = time.monotonic() + seconds
        while self.status is None and time.monotonic() < deadline:
            self.read(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
                while self.read(0):  # its last words
                    pass
        return self.status

    def close(self):
        if self.status is None and self.wait(0.1) is None:
            os.kill(self.pid, 9)
            os.waitpid(self.pid, 0)
        os.close(self.terminal)
