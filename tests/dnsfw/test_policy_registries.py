"""@registry: hosts from the tools' own configuration. Real tools where this machine has them, with made-up hosts."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import which

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsfw.machine.asking import Asking
from dnsfw.machine.privilege import User, calling_user
from dnsfw.policies.registries import _line, registry_rules
from policy import Action, Kind
from policy.parse import parse
from tests.dnsfw.commands import dnsfw

ROOT = Path(__file__).parents[2]
ME = calling_user({})
NOBODY = User(65534, 65534, (), "nobody", "/nonexistent", "/bin/sh")
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # this environment's pip first


def asking(user: User, environ: Mapping[str, str], within: float = 20.0) -> Asking:
    return Asking(user, {"PATH": PATH, **environ}, time.monotonic() + within)


@dataclass(frozen=True)
class Home:
    """A user's home folder, with the tools' configuration in it; also the current folder, which has no say."""

    path: Path

    def write(self, name: str, text: str) -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def rules(self, tool: str, **environ: str) -> list[str]:
        """The rules, without comments."""
        return [line.partition("#")[0].strip() for line in self.told(tool, **environ) if not line.startswith("#")]

    def told(self, tool: str, **environ: str) -> list[str]:
        return registry_rules(tool, asking(replace(ME, home=str(self.path)), environ)).split("\n")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.chdir(tmp_path)
    return Home(tmp_path)


def needs(tool: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(which(tool, path=PATH) is None, reason=f"{tool} isn't installed on this machine")


@needs("npm")
def test_npm_default_and_scoped_registries(home: Home) -> None:
    home.write(".npmrc", "registry=https://mirror.example/npm/\n@corp:registry=https://npm.corp.example:8443/\n")
    assert sorted(home.rules("npm")) == ["mirror.example", "npm.corp.example:8443"]


@needs("npm")
def test_npm_environment_and_project_win(home: Home) -> None:
    home.write(".npmrc", "registry=https://mirror.example/\n")
    assert home.rules("npm", npm_config_registry="http://other.example/") == ["other.example:80"]


@needs("npm")
def test_npm_reports_its_own_default(home: Home) -> None:
    (line,) = home.told("npm")
    assert line.endswith("  # npm config get registry")
    assert len(parse(line, "p").rules) == 1


@needs("pip")
def test_pip_index_extra_indexes_and_links(home: Home) -> None:
    config = home.write(
        "pip.conf",
        "[global]\nindex-url = https://pip.example/simple\n"
        "extra-index-url =\n    https://u:p@extra.example:8443/simple\n    https://more.example/s\n"
        "find-links = /opt/wheels\n    https://wheels.example/\n    file:///opt/x\n",
    )
    assert sorted(home.rules("pip", PIP_CONFIG_FILE=str(config))) == [
        "extra.example:8443", "more.example", "pip.example", "wheels.example",
    ]  # fmt: skip


@needs("pip")
def test_pip_environment_wins(home: Home) -> None:
    config = home.write("pip.conf", "[global]\nindex-url = https://pip.example/simple\n")
    made = home.rules("pip", PIP_CONFIG_FILE=str(config), PIP_INDEX_URL="https://env.example/s")
    assert made == ["env.example"]


@needs("pip")
def test_pip_without_an_index(home: Home) -> None:
    made = home.rules("pip", PIP_CONFIG_FILE=os.devnull, PIP_NO_INDEX="1", PIP_FIND_LINKS="https://wheels.example/")
    assert made == ["wheels.example"]


@needs("pip")
def test_pip_reports_its_own_default_and_where_its_files_are(home: Home) -> None:
    told = home.told("pip", PIP_CONFIG_FILE=os.devnull)
    assert [line.partition("  # ")[2] for line in told] == [
        "pip install --help: --index-url",
        "pip: files of its default index",
    ]


@needs("apt-get")
def test_apt_sources_of_every_kind(home: Home) -> None:
    mirrors = home.write("mirrors.txt", "https://one.example/debian/\tpriority:1\nhttp://two.example/debian/\n")
    home.write(
        "sources.list",
        "deb http://deb.example/debian stable main\ndeb-src https://src.example:8443/debian stable main\n"
        f"deb mirror+file:{mirrors} stable main\ndeb [trusted=yes] file:/srv/repo stable main\n"
        "deb mirror+https://list.example/m stable main\n# deb http://off.example/debian stable main\n",
    )
    config = home.write(
        "apt.conf", f'Dir::Etc::sourcelist "{home.path}/sources.list";\nDir::Etc::sourceparts "/none";\n'
    )
    assert sorted(home.rules("apt", APT_CONFIG=str(config))) == [
        "deb.example:80", "list.example", "one.example", "src.example:8443", "two.example:80",
    ]  # fmt: skip


@needs("apt-get")
def test_apt_says_which_line_of_which_file(home: Home) -> None:
    home.write("sources.list", "\ndeb http://deb.example/debian stable main\n")
    config = home.write(
        "apt.conf", f'Dir::Etc::sourcelist "{home.path}/sources.list";\nDir::Etc::sourceparts "/none";\n'
    )
    assert home.told("apt", APT_CONFIG=str(config)) == [f"deb.example:80  # apt: {home.path}/sources.list:2"]


def cargo(home: Home, **environ: str) -> list[str]:
    rustup = os.environ.get("RUSTUP_HOME", str(Path(ME.home) / ".rustup"))
    return home.told("cargo", RUSTUP_HOME=rustup, CARGO_HOME=str(home.path / "cargo"), **environ)


@needs("cargo")
def test_cargo_registries_sources_and_downloads(home: Home) -> None:
    home.write(
        "cargo/config.toml",
        '[registries.corp]\nindex = "sparse+https://cargo.corp.example/index/"\n'
        '[source.crates-io]\nreplace-with = "mirror"\n[source.mirror]\nregistry = "https://mirror.example/git"\n'
        '[source.vendored]\ndirectory = "vendor"\n',
    )
    home.write("cargo/registry/index/mirror-0/config.json", '{"dl": "https://dl.example:8443/{crate}", "api": null}')
    told = cargo(home, CARGO_REGISTRIES_OTHER_INDEX="https://other.example/index")
    assert [line.partition("  # ")[0] for line in told] == [
        "cargo.corp.example", "mirror.example", "other.example", "dl.example:8443",
    ]  # fmt: skip


@needs("cargo")
def test_cargo_reports_its_own_default_without_asking_the_network(home: Home) -> None:
    line, remark = cargo(home)
    assert line.endswith("  # cargo search: the index in force")
    assert len(parse(line, "p").rules) == 1
    assert remark.startswith("# cargo has no copy of an index yet")


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Home:
    """The current folder, and another one than the user's. Who wrote it need not be who wrote the policy."""
    path = tmp_path_factory.mktemp("project")
    monkeypatch.chdir(path)
    return Home(path)


@needs("npm")
def test_a_project_has_no_say_in_npm_s_registry(home: Home, project: Home) -> None:
    project.write("package.json", "{}")
    project.write(".npmrc", "registry=https://evil.example/\n")
    assert not any("evil" in line for line in home.told("npm"))


@needs("cargo")
def test_a_project_has_no_say_in_cargo_s_registries(home: Home, project: Home) -> None:
    project.write(".cargo/config.toml", '[registries.evil]\nindex = "sparse+https://evil.example/"\n')
    assert not any("evil" in line for line in cargo(home))


def test_a_program_is_not_asked_in_the_current_folder(home: Home) -> None:
    """Some (rustup's) run what they find there."""
    assert asking(ME, {})("pwd") == "/\n"


# go's own words, as `go env -json GOPROXY GOSUMDB` printed them (go 1.27.3), with other hosts.
GO = '#!/bin/sh\n[ "$GOTOOLCHAIN" = local ] && printf \'%s\' \'{"GOPROXY": "$GOPROXY", "GOSUMDB": "$GOSUMDB"}\'\n'


@pytest.mark.parametrize(
    ("proxy", "sums", "rules"),
    [
        ("https://proxy.example,direct", "sum.example", ["proxy.example", "sum.example"]),
        ("https://a.example|http://b.example:8080,off", "off", ["a.example", "b.example:8080"]),
        ("https://a.example/go", "sum.example+abc https://sums.example/x", ["a.example", "sums.example"]),
        ("file:///srv/go,https://a.example", "", ["a.example"]),
    ],
)
def test_go_proxies_and_checksums(home: Home, proxy: str, sums: str, rules: list[str]) -> None:
    home.write("bin/go", GO.replace("$GOPROXY", proxy).replace("$GOSUMDB", sums)).chmod(0o755)
    assert home.rules("go", PATH=f"{home.path}/bin:/usr/bin:/bin") == rules


def test_go_says_what_direct_leaves_open(home: Home) -> None:
    home.write("bin/go", GO.replace("$GOPROXY", "https://a.example,direct").replace("$GOSUMDB", "off")).chmod(0o755)
    assert any(line.startswith("# go: GOPROXY") for line in home.told("go", PATH=f"{home.path}/bin:/usr/bin:/bin"))


@pytest.mark.parametrize(
    ("tool", "program", "problem"),
    [
        ("npm", None, "npm isn't installed, or not in PATH"),
        ("pip", None, "pip isn't installed, or not in PATH"),
        ("apt", None, "apt-get isn't installed, or not in PATH"),
        ("cargo", None, "cargo isn't installed, or not in PATH"),
        ("go", None, "go isn't installed, or not in PATH"),
        ("yarn", None, "yarn is not a tool that can be asked; npm, pip, apt, cargo, go are"),
        ("npm", "echo broken >&2; exit 3", "`npm config ls --long --json` failed: broken"),
        ("npm", "exit 3", "`npm config ls --long --json` failed: status 3"),
        ("npm", "echo '{}'", "npm names no registry that is reached over the network"),
        ("npm", "echo nonsense", "npm's answer can't be read"),
        ("go", "echo '[]'", "go's answer can't be read"),
        ("npm", 'echo \'{"registry": "file:///srv"}\'', "npm names no registry that is reached over the network"),
        ("npm", 'echo \'{"registry": "https://*.example/"}\'', "which is no usable URL"),
        ("npm", 'echo \'{"registry": "https://[::x]/"}\'', "which is no usable URL"),
        ("npm", 'echo \'{"registry": "https://a.example:99999/"}\'', "which is no usable URL"),
        ("cargo", "echo hm >&2", "cargo doesn't say which registry it uses"),
    ],
)  # fmt: skip
def test_a_tool_that_gives_no_answer_is_a_clear_error(home: Home, tool: str, program: str | None, problem: str) -> None:
    home.write("bin/.keep", "")
    if program is not None:
        home.write(f"bin/{tool}", f"#!/bin/sh\n{program}\n").chmod(0o755)
    with pytest.raises(LookupError) as caught:
        home.told(tool, PATH=f"{home.path}/bin", CARGO_HOME=str(home.path))
    assert problem in str(caught.value)


def test_a_tool_that_hangs_is_ended_with_all_it_started(home: Home) -> None:
    home.write("bin/npm", "#!/bin/sh\nsleep 600 &\necho $! >$HOME/child\nwait\n").chmod(0o755)
    ask = asking(replace(ME, home=str(home.path)), {"PATH": f"{home.path}/bin:/usr/bin:/bin"}, within=0.5)
    with pytest.raises(LookupError, match="npm gave no answer in time"):
        ask("npm")
    try:
        handle = os.pidfd_open(int((home.path / "child").read_text()))
    except ProcessLookupError:
        return
    assert select.select([handle], [], [], 5.0)[0], "the tool's child lives on"
    os.close(handle)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_tool_runs_as_the_calling_user(home: Home) -> None:
    home.path.chmod(0o755)
    for folder in home.path.parents[:3]:
        folder.chmod(0o755)
    home.write("bin/npm", "#!/bin/sh\nid -u; id -G; echo $HOME $USER\n").chmod(0o755)
    said = asking(NOBODY, {"PATH": f"{home.path}/bin:/usr/bin:/bin", "HOME": "/root"})("npm")
    assert said == "65534\n65534\n/nonexistent nobody\n"


@given(st.one_of(st.text(max_size=60), st.text("ab.*:/@#[]{}!|\n\t 1%", max_size=30).map("https://{}".format)))
def test_a_configured_value_can_say_a_host_and_nothing_else(url: str) -> None:
    try:
        line = _line(url)
    except LookupError:
        return
    rules = parse(line, "p").rules
    assert len(rules) == (1 if line else 0)
    assert all(
        r.action is Action.ALLOW and r.kind in {Kind.HOST, Kind.ADDRESS} and not r.flags and not r.who for r in rules
    )
    assert all("*" not in str(rule.destination) for rule in rules)


def test_origins_stay_within_their_comment(home: Home) -> None:
    hostile = '{"@x\\nevil.example\\u001b:registry": "https://a.example/"}'
    home.write("bin/npm", f"#!/bin/sh\nprintf '%s' '{hostile}'\n").chmod(0o755)
    assert home.told("npm", PATH=f"{home.path}/bin:/usr/bin:/bin") == [
        "a.example  # npm config get @xevil.example:registry"
    ]


def test_check_shows_what_was_derived_and_from_where(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.write("bin/npm", '#!/bin/sh\necho \'{"registry": "https://a.example:8443/"}\'\n').chmod(0o755)
    monkeypatch.setenv("PATH", f"{home.path}/bin:/usr/bin:/bin")
    said = dnsfw("check", "-", stdin="@registry npm\n")
    assert said == (
        0,
        """\
derived from this machine's own configuration:
    npm: a.example:8443  # npm config get registry
policy valid, 1 rule: nothing to remark
""",
        "",
    )


def test_a_missing_tool_is_an_error_at_its_line(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.write("bin/.keep", "")
    monkeypatch.setenv("PATH", f"{home.path}/bin")
    said = dnsfw("check", "-", stdin="a.example\n@registry cargo\n")
    assert said.status == 1
    assert "<stdin>:2:11: error: nothing to take in: cargo isn't installed, or not in PATH" in said.out


def own_registries(environ: Mapping[str, str]) -> set[str]:
    """The hosts that this machine's tools really use."""
    hosts = set()
    for tool in ("npm", "pip", "apt", "cargo"):
        try:
            rules = parse(registry_rules(tool, asking(ME, environ)), tool).rules
        except LookupError:
            continue  # not on this machine
        hosts |= {str(rule.destination) for rule in rules if rule.kind is Kind.HOST and "." in str(rule.destination)}
    return hosts


def test_no_registry_is_written_down_in_this_repository() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    files = [ROOT / name for name in tracked.split("\0") if name and (ROOT / name).is_file()]
    if not files:
        pytest.skip("no git checkout here")
    defaults = {"PATH": PATH, "PIP_CONFIG_FILE": os.devnull}
    hosts = own_registries({**os.environ, **defaults})
    found = [(str(file), host) for file in files for host in hosts if host.encode() in file.read_bytes().lower()]
    assert found == []
