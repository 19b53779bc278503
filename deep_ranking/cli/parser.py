"""The parser of a command: help in two lengths, and usage errors of one line."""

import argparse
from collections.abc import Container, Iterator, Sequence
from typing import Any, NoReturn

Example = tuple[str, str]  # what it does, and the command line


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Short forms of flags, defaults only where they say something, and texts of several lines."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is True:
            return f"{action.help} (default: on)"
        says_something = action.default is not None and action.default is not False
        return super()._get_help_string(action) if says_something else action.help

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        # Short spellings first; `--[no-]FLAG` for two.
        names = sorted(action.option_strings, key=lambda name: name.startswith("--"))
        if isinstance(action, argparse.BooleanOptionalAction):
            names = [f"--[no-]{names[0].removeprefix('--')}"]
        text = ", ".join(names)
        if action.nargs == 0:
            return text
        return f"{text} {self._format_args(action, action.dest.upper())}"

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text  # counts the indent as part of the width
        lines = text.splitlines()
        return "\n".join(fill(line, width + len(indent), indent) for line in lines)


class Parser(argparse.ArgumentParser):
    """A parser with `--help` of the flags that most people need, and `--help-all` of all.

    Args:
        examples: what `--help` shows below the description.
        basic_flags: names of the flags in `--help`, beside the required ones; None for all.
        add_help: whether to add the two flags.
        **settings: of `argparse.ArgumentParser`.
    """

    def __init__(
        self,
        *,
        examples: Sequence[Example] = (),
        basic_flags: Container[str] | None = None,
        add_help: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(add_help=False, formatter_class=HelpFormatter, **settings)
        self.examples = examples
        self.basic_flags = basic_flags
        self._optionals.title = "help"  # commands put their flags into groups of their own
        if add_help:
            # Where `--help` shows all flags, it need not mention `--help-all`.
            texts = ("show this help", argparse.SUPPRESS)
            if basic_flags is not None:
                texts = ("show the flags that most people need", "show all flags")
            self.add_argument("-h", "--help", action="help", help=texts[0])
            self.add_argument(
                "--help-all",
                action=_HelpAll,
                nargs=0,
                default=argparse.SUPPRESS,
                help=texts[1],
            )

    def error(self, message: str) -> NoReturn:
        """End the program with exit code 2."""
        self.exit(2, f"{self.prog}: error: {message}; see --help\n")

    def format_help(self) -> str:
        """Return the help of the basic flags."""
        hidden = [action for action in self._actions if not self._is_basic(action)]
        noun = "flag" if len(hidden) == 1 else "flags"
        end = f"--help-all shows {len(hidden)} more {noun}." if hidden else None
        return self._format_help(hidden, end)

    def format_help_all(self) -> str:
        """Return the help of all flags."""
        return self._format_help([], self.epilog)

    def _format_help(self, hidden: Container[argparse.Action], end: str | None) -> str:
        formatter = self.formatter_class(prog=f"{self.prog} [options]")
        formatter.add_usage(None, list(self._needed()), self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        formatter.start_section("examples")
        formatter.add_text("\n".join(f"# {what}\n{line}" for what, line in self.examples))
        formatter.end_section()
        for group in sorted(self._action_groups, key=lambda each: each is self._optionals):
            formatter.start_section(group.title)
            formatter.add_text(group.description)
            formatter.add_arguments([each for each in group._group_actions if each not in hidden])
            formatter.end_section()
        formatter.add_text(end)
        return formatter.format_help()

    def _is_basic(self, action: argparse.Action) -> bool:
        always = action.required or isinstance(action, argparse._HelpAction | _HelpAll)
        return always or self.basic_flags is None or action.dest in self.basic_flags

    def _needed(self) -> Iterator[argparse.Action]:
        """Yield the actions of which the command line cannot do without one."""
        one_of = [group for group in self._mutually_exclusive_groups if group.required]
        for action in self._actions:
            if action.required or any(action in group._group_actions for group in one_of):
                yield action


class _HelpAll(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        assert isinstance(parser, Parser)
        print(parser.format_help_all(), end="")
        parser.exit()
