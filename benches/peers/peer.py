"""Installs llama.cpp by an ordinary package client, builds the small program that times it, and prepares its model files.

Everything lies in a cache folder outside the repository.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import gguf

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
# Its package for a platform holds llama.cpp's libraries, one for each kind of processor, and the source that they were built from.
PACKAGE = "node-llama-cpp@3.22.1"
# llama_ftype of llama.h, and whether every matrix gets that format: files of the K formats are mixtures, Q4_0 is faster without Q6_K.
FORMATS = {"Q4_0": (2, 1), "Q8_0": (7, 1), "Q3_K_S": (11, 0), "Q4_K_M": (15, 0)}


def cache_folder():
    """Where files are kept: $DWINDLE_PEERS_CACHE, or below the user's cache."""
    default = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "dwindle-peers"
    return pathlib.Path(os.environ.get("DWINDLE_PEERS_CACHE", default)).absolute()


def dwindle_binary():
    """$DWINDLE, or the release build of this repository."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    return pathlib.Path(os.environ.get("DWINDLE", target / "release" / "dwindle")).absolute()


def configuration(shape):
    """The configuration of one of Dwindle's presets."""
    path = REPOSITORY / "compiler" / "src" / "synth" / "presets" / f"{shape}.json"
    if not path.is_file():
        known = ", ".join(sorted(other.stem for other in path.parent.glob("*.json")))
        raise SystemExit(f"{shape} is not a preset of `dwindle synth`: {known}")
    return json.loads(path.read_text())


def call(arguments, **options):
    """Runs a command whose output is for the user to see where it fails; returns stdout."""
    result = subprocess.run([str(a) for a in arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, arguments))} failed:\n{result.stderr[-4000:]}")
    return result


class Peer:
    """llama.cpp in one build: `best` lets ggml choose among the package's backends, another name (sapphirerapids, icelake,
    haswell …) allows that one alone."""

    def __init__(self, build, cache):
        self.build, self.cache = build, cache
        self.package = cache / "node_modules"
        self.source = cache / "llama.cpp"
        self.program = cache / "llama-peer"
        self.environment = dict(os.environ)
        self._install()
        self._choose_backends()

    def _libraries(self):
        folders = sorted(self.package.glob("@node-llama-cpp/linux-x64/bins/linux-x64")) or sorted(
            folder for folder in self.package.glob("@node-llama-cpp/*/bins/*") if (folder / "llama-addon.node").exists()
        )
        if not folders:
            raise SystemExit(f"{PACKAGE} has no libraries for this platform")
        return folders[0]

    def _install(self):
        if not (self.package / "node-llama-cpp").is_dir():
            print(f"installing {PACKAGE} …", file=sys.stderr)
            self.cache.mkdir(parents=True, exist_ok=True)
            call(["npm", "install", "--prefix", self.cache, "--ignore-scripts", "--no-audit", "--no-fund", PACKAGE])
        if not self.source.is_dir():
            call(["git", "clone", "--quiet", self.package / "node-llama-cpp" / "llama" / "gitRelease.bundle", self.source])

    def _compile(self, libraries):
        if self.program.exists() and self.program.stat().st_mtime > (HERE / "llama.c").stat().st_mtime:
            return
        includes = [f"-I{self.source / part}" for part in ("include", "ggml/include")]
        folder = libraries[0].parent
        call(["cc", "-O2", *includes, HERE / "llama.c", "-o", self.program, *libraries, f"-Wl,-rpath,{folder}", "-lm"])

    def _choose_backends(self):
        folder = self._libraries()
        found = [next(iter(sorted(folder.glob(f"lib{name}*.so")))) for name in ("llama.v", "ggml.v", "ggml-base")]
        self._compile(found)
        self.environment["DWINDLE_PEER_BACKENDS"] = str(folder)
        if self.build != "best":
            backend = folder / f"libggml-cpu-{self.build}.so"
            if not backend.exists():
                names = ", ".join(sorted(b.stem.removeprefix("libggml-cpu-") for b in folder.glob("libggml-cpu-*.so")))
                raise SystemExit(f"there is no build {self.build}: best, {names}")
            alone = self.cache / "backends" / self.build
            alone.mkdir(parents=True, exist_ok=True)
            if not (alone / backend.name).exists():
                (alone / backend.name).symlink_to(backend)
            self.environment["DWINDLE_PEER_BACKENDS"] = str(alone)

    def run(self, *arguments):
        """What the program measured; `backend` and `buffers` are what its log said."""
        result = call([self.program, *arguments], env=self.environment)
        measured = json.loads(result.stdout)
        lines = [line.strip(". ") for line in result.stderr.splitlines()]
        loaded = [line.rsplit("libggml-cpu-", 1)[1].removesuffix(".so") for line in lines if "loaded CPU backend" in line]
        measured["backend"] = loaded[0] if loaded else "unknown"
        weights = [line for line in lines if line.startswith("load_tensors:")]
        measured["buffers"] = [line.split(":", 1)[1].split(" model buffer")[0].strip() for line in weights]
        return measured

    def model(self, shape, kind):
        """The file of random weights in 16 bits ("f16" or "bf16"), or in one of FORMATS."""
        path = self.cache / f"{shape}-{kind}.gguf"
        if path.exists():
            return path
        print(f"writing {path} …", file=sys.stderr)
        if kind not in FORMATS:
            gguf.write(path, configuration(shape), kind)
            return path
        number, pure = FORMATS[kind]
        aside = path.with_suffix(".part")
        self.run("quantize", self.model(shape, "f16"), aside, number, pure, os.cpu_count() or 1)
        aside.rename(path)
        settle(path)
        return path


def settle(path):
    """Lets a new file leave the page cache, so that its first reader brings it in as after a start of the machine: in large pages where
    the system has them, and not in the pieces in which it happened to be written."""
    if hasattr(os, "posix_fadvise"):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def bundle(dwindle, shape, scheme, context, cache):
    """A bundle of the same shape for `cpu`, with random weights."""
    path = cache / f"{shape}-{scheme}-{context}.dwindle"
    # A bundle of an earlier version of the format is made again.
    if not path.exists() or subprocess.run([dwindle, "inspect", path], capture_output=True).returncode != 0:
        print(f"writing {path} …", file=sys.stderr)
        checkpoint = cache / f"{shape}-checkpoint"
        if not checkpoint.exists():
            call([dwindle, "synth", shape, "-o", checkpoint])
        call([dwindle, "compile", checkpoint, "--scheme", scheme, "--target", "cpu", "--context", context, "-o", path])
        settle(path)
    return path


def forget_sources(shape, cache):
    """Removes the 16-bit files of a shape, from which the others were made."""
    shutil.rmtree(cache / f"{shape}-checkpoint", ignore_errors=True)
    for kind in ("f16", "bf16"):
        (cache / f"{shape}-{kind}.gguf").unlink(missing_ok=True)
