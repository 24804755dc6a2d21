"""The client as npm gets it: small, typed, without dependencies; a Vite project builds with it."""

import gzip
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.conftest import Need

REPOSITORY = Path(__file__).parent.parent.parent
CLIENT = REPOSITORY / "src" / "jotgate" / "client"
MAX_BYTES = 6000
WITHIN_S = 120  # only a program that hangs takes so long
USES = """
import { createClient, JotgateError } from "jotgate";
import type { Client, State } from "jotgate/types";
const auth: Client = createClient({ url: "/auth" });
const { status }: State = await auth.ready;
const { secondFactor } = await auth.login({ email: "a@b.example", password: "x" });
const wait: number | undefined = secondFactor?.expiresIn;
const stop: () => void = auth.on("change", ({ status, scopes }) => { status === "in" && scopes.join(" "); });
const token: string | null = await auth.getToken();
const current: boolean = (await auth.sessions())[0].current;
const answer: Response = await auth.fetch("/api/orders", { method: "POST", body: "{}", timeoutMs: 5000 });
if (new JotgateError("timeout", "").retryAfterS === null) console.log(status, wait, stop, token, current, answer);
"""
MISUSES = (
    'createClient({ url: "/auth", storage: localStorage });',
    'createClient({ url: "/auth" }).on("changed", () => {});',
    'createClient({ url: "/auth" }).login({ email: "a@b.example" });',
    'createClient({ url: "/auth" }).state.status === "logged in";',
)
CONFIGURATION = {
    "compilerOptions": {"strict": True, "noEmit": True, "target": "es2022", "module": "es2022", "types": []}
    | {"moduleResolution": "bundler", "lib": ["es2022", "dom"]},
    "files": ["main.ts"],
}


def run(*command: str | Path, folder: Path) -> str:
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def tools(node_modules: Path) -> Path:
    return node_modules / ".bin"


@pytest.fixture(scope="module")
def project(tools: Path, need: Need, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A front end's folder, with the package in its node_modules, as `npm pack` makes it."""
    folder = tmp_path_factory.mktemp("front end")
    # Packing writes beside the sources; other tests build from those.
    sources = folder / "jotgate" / "src" / "jotgate" / "client"
    shutil.copytree(CLIENT, sources)
    shutil.copy(REPOSITORY / "LICENSE", folder / "jotgate")
    environment = os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    packed = subprocess.run(
        [need("npm"), "pack", "--silent", "--offline", "--pack-destination", folder],
        cwd=sources,
        env=environment,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert packed.returncode == 0, packed.stdout + packed.stderr
    assert sorted(path.name for path in sources.iterdir()) == ["package.json", "tsconfig.json", "types.js", "v1.js"]
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (folder / "node_modules").mkdir()
    (folder / "package").rename(folder / "node_modules" / "jotgate")
    (folder / "package.json").write_text(json.dumps({"private": True, "type": "module"}))
    (folder / "index.html").write_text('<script type="module" src="/main.ts"></script>')
    (folder / "tsconfig.json").write_text(json.dumps(CONFIGURATION))
    return folder


def test_it_is_small() -> None:
    assert len(gzip.compress((CLIENT / "v1.js").read_bytes(), 9)) < MAX_BYTES


def test_its_types_hold(tools: Path) -> None:
    run(tools / "tsc", "--noEmit", folder=CLIENT)


def test_the_package_holds_what_is_imported_and_nothing_else(project: Path) -> None:
    package = project / "node_modules" / "jotgate"
    assert sorted(path.name for path in package.iterdir()) == [
        "LICENSE",
        "package.json",
        "types.d.ts",
        "v1.d.ts",
        "v1.js",
    ]
    assert (package / "v1.js").read_bytes() == (CLIENT / "v1.js").read_bytes()
    assert "dependencies" not in json.loads((package / "package.json").read_text())


def test_its_version_is_that_of_the_program(project: Path) -> None:
    packed = json.loads((project / "node_modules" / "jotgate" / "package.json").read_text())["version"]
    assert f'\nversion = "{packed}"\n' in (REPOSITORY / "pyproject.toml").read_text()


def test_a_vite_project_builds_with_its_types(project: Path, tools: Path) -> None:
    unwanted = "".join(f"// @ts-expect-error\n{line}\n" for line in MISUSES)
    (project / "main.ts").write_text(USES + unwanted)
    run(tools / "tsc", folder=project)
    (project / "main.ts").write_text(USES)
    run(tools / "vite", "build", "--target", "es2022", folder=project)
    (bundle,) = (project / "dist" / "assets").glob("*.js")
    assert "/v1/refresh" in bundle.read_text()
