"""The files of the page: what the server sends, and that its parts fit together."""

import re

import pytest
from served import caller_of, make_served, use_stub_engine, write_photos

from deep_ranking.files.design import TOKENS
from deep_ranking.serving.answers import WORDS
from deep_ranking.serving.guard import OF_PAGES
from deep_ranking.serving.settings import ServerSettings
from deep_ranking.serving.static_pages import FILES, STATIC

FIRST_BYTES, VIEW_BYTES = 125_000, 45_000  # of a first visit; of a view that is loaded when opened
PAGE = {address: name for address, (name, _) in FILES.items() if "/api/" not in address}
SCRIPTS = sorted(name for name in PAGE.values() if name.endswith(".js"))
STYLES = [name for name in PAGE.values() if name.endswith(".css") and name != "tokens.css"]
STYLE = TOKENS.read_text() + "".join((STATIC / name).read_text() for name in STYLES)
HTML = (STATIC / "index.html").read_text()
OF_A_VIEW = r"""(\w+): \{[^\n]*import\("\./([\w.]+)"\)(?:, style: "([\w.]+)")?"""


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        use_stub_engine(patch)
        write_photos(folder / "photos")
        made = make_served(folder / "index", folder / "photos")
        yield caller_of(made, settings=ServerSettings(token="a-token-of-enough-length"))


def path_of(name):
    return TOKENS if name == TOKENS.name else STATIC / name


def text_of(name):
    return path_of(name).read_text()


@pytest.mark.parametrize("address", PAGE)
def test_the_page_is_sent_with_its_policy_and_without_a_token(call, address):
    answer = call("GET", address)
    assert answer.status_code == 200
    assert answer.content == path_of(PAGE[address]).read_bytes()
    assert answer.headers["content-type"].split(";")[0] == FILES[address][1].split(";")[0]
    assert answer.headers["content-security-policy"] == OF_PAGES
    assert "unsafe" not in OF_PAGES and "default-src 'none'" in OF_PAGES


def test_every_file_is_sent_and_nothing_else(call):
    kept = {each.name for each in STATIC.iterdir()} | {TOKENS.name}
    assert {name for name, _ in FILES.values()} == kept
    for address in ("/page/", "/page/docs.css", "/page/../guard.py", "/page/x.js", "/index.html"):
        assert call("GET", address).status_code == 404


def loaded_with(*names):
    """The modules that a browser loads with some: all that they import, and not on demand."""
    found, waiting = set(), [name for name in names if name]
    while waiting:
        name = waiting.pop()
        found.add(name)
        imported = re.findall(r'^import [^;]*"\./([\w.]+)"', text_of(name), re.M)
        waiting += set(imported) - found
    return found


def size_of(names):
    return sum(len(path_of(name).read_bytes()) for name in names)


def test_a_first_visit_and_each_view_are_small():
    linked = re.findall(r'(?:src|href)="(/page/[^"]+)"', HTML)
    first = {"index.html"} | loaded_with(*(PAGE[each] for each in linked))
    assert {"page.js", "search.js", "page.css"} < first and size_of(first) < FIRST_BYTES
    views = {each[0]: loaded_with(*each[1:]) for each in re.findall(OF_A_VIEW, text_of("views.js"))}
    assert {"map", "duplicates", "viewer", "heat"} <= views.keys()
    assert {"map.js", "map.css", "plane.js"} <= views["map"]
    for name, files in views.items():
        assert files - first and size_of(files - first) < VIEW_BYTES, name
    assert first.union(*views.values()) == set(PAGE.values())


def test_one_module_changes_the_state_and_the_address():
    changes = r"\b(?:push|replace)State|history\.(?:back|go|forward)\("
    changing = {name for name in SCRIPTS if re.search(changes, text_of(name))}
    assert changing == {"state.js", "store.js"}
    using = {name for name in SCRIPTS if re.search(r"\bwriteState\b", text_of(name))}
    assert using == {"state.js", "store.js"}


def test_no_code_and_no_style_is_inline():
    assert re.findall(r"<script[^>]*>[^<]", HTML) == []
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", HTML)
    for name in SCRIPTS:
        unsafe = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
        assert not re.search(unsafe, text_of(name)), name
        assert not re.search(r"""setAttribute\(["'](style|on)""", text_of(name)), name


def test_nothing_comes_from_elsewhere():
    for name in PAGE.values():
        text = text_of(name).replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|[\"'(]//|@import|url\(", text), name
    links = re.findall(r'(?:src|href)="([^"#]+)"', HTML)
    assert links and set(links) <= FILES.keys()


def test_modules_import_what_there_is():
    for name in SCRIPTS:
        for names, other in re.findall(r'import \{([^}]*)\} from "\./([^"]+)"', text_of(name)):
            assert other in SCRIPTS
            exported = set(
                re.findall(
                    r"^export (?:async )?(?:function|const|class) (\w+)", text_of(other), re.M
                )
            )
            assert {each.strip() for each in names.split(",")} <= exported, (name, other)


def test_elements_that_the_modules_look_for_exist_once():
    ids = re.findall(r'\bid="([^"]+)"', HTML)
    assert len(ids) == len(set(ids))
    wanted = set()
    for name in SCRIPTS:
        wanted |= set(re.findall(r'byId\("([^"]+)"\)', text_of(name)))
    assert len(wanted) > 40 and wanted <= set(ids), wanted - set(ids)
    assert {"token-view", "empty-view", "search-view", "duplicates-view"} <= set(ids)
    icons = {name for each in SCRIPTS for name in re.findall(r'icon\("(\w+)"\)', text_of(each))}
    icons |= set(re.findall(r'href="#icon-(\w+)"', HTML))
    assert {f"icon-{name}" for name in icons} <= set(ids)


def test_labels_and_landmarks():
    for name in re.findall(r'\bfor="([^"]+)"', HTML):
        assert f'id="{name}"' in HTML
    for name in re.findall(r'aria-(?:labelledby|controls)="([^"]+)"', HTML):
        assert f'id="{name}"' in HTML
    assert re.search(r"<header.*<nav aria-label=.*<main", HTML, re.S)
    assert all("alt=" in each for each in re.findall(r"<img[^>]*>", HTML))
    names = re.findall(r' id="([^"]+)"', HTML)
    assert len(names) == len(set(names))
    assert 'aria-live="polite"' in HTML and '<html lang="en">' in HTML


def test_the_design_values_are_in_one_place():
    assert set(re.findall(r"^  (--[\w-]+): #", TOKENS.read_text(), re.M)) > {"--accent", "--ink"}
    for name in ("index.html", "docs.html"):
        first, *others = re.findall(r'rel="stylesheet" href="([^"]+)"', text_of(name))
        assert first == "/page/tokens.css" and others
        for address in others:
            assert not re.search(r"prefers-color-scheme|:root", text_of(FILES[address][0]))


def test_dark_and_reduced_motion():
    assert "prefers-color-scheme: dark" in STYLE and "prefers-reduced-motion" in STYLE
    used, defined = (
        set(re.findall(r"var\((--[\w-]+)", STYLE)),
        set(re.findall(r"(--[\w-]+):", STYLE)),
    )
    assert used <= defined


def test_words_change_where_those_of_the_api_do():
    bounds = [float(each) for each in re.findall(r"^  \[([\d.]+), \"", text_of("words.js"), re.M)]
    assert bounds == [*[least for least, _ in WORDS][:3], 0]
