//! The program, and a directory to run it in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The example model.
pub(crate) const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tiny-llama");

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_swiftprune-wgpu");

/// A run of the program that has yet to start.
pub(crate) fn program() -> Command {
    Command::new(PROGRAM)
}

/// What a run said: on stderr, and then on stdout.
pub(crate) fn said(output: &Output) -> String {
    [&output.stderr, &output.stdout]
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .concat()
}

/// What a run said on stderr.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The words of a command line: a list, or a line of words with spaces between.
pub(crate) trait Words {
    fn words(&self) -> Vec<String>;
}

impl Words for str {
    fn words(&self) -> Vec<String> {
        self.split_whitespace().map(str::to_owned).collect()
    }
}

impl Words for String {
    fn words(&self) -> Vec<String> {
        self.as_str().words()
    }
}

impl Words for [&str] {
    fn words(&self) -> Vec<String> {
        self.iter().map(|word| (*word).to_owned()).collect()
    }
}

impl<const N: usize> Words for [&str; N] {
    fn words(&self) -> Vec<String> {
        self.as_slice().words()
    }
}

impl Words for Vec<&str> {
    fn words(&self) -> Vec<String> {
        self.as_slice().words()
    }
}

/// An empty directory, in which the program runs.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// With the example in three shards, `model`.
    pub(crate) fn sharded() -> Self {
        let place = Self::new();
        sharded_example(place.dir.path());
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// The weights of the model `out`.
    pub(crate) fn weights(&self, out: &str) -> Vec<u8> {
        fs::read(self.path(out).join("model.safetensors")).unwrap()
    }

    pub(crate) fn command(&self, words: &(impl Words + ?Sized)) -> Command {
        let mut command = program();
        command.current_dir(self.dir.path()).args(words.words());
        command
    }

    pub(crate) fn run(&self, words: &(impl Words + ?Sized)) -> Output {
        self.command(words).output().unwrap()
    }

    /// That a run ends well.
    #[track_caller]
    pub(crate) fn done(&self, words: &(impl Words + ?Sized)) -> Output {
        let output = self.run(words);
        let code = output.status.code();
        assert_eq!(code, Some(0), "{:?}: {}", words.words(), said(&output));
        output
    }

    /// That a run ends with a code; what it said on stderr.
    #[track_caller]
    pub(crate) fn refused(&self, words: &(impl Words + ?Sized), code: i32) -> String {
        let output = self.run(words);
        let ended = output.status.code();
        assert_eq!(ended, Some(code), "{:?}: {}", words.words(), said(&output));
        stderr(&output)
    }

    /// That a run does not end well; what it said on stderr.
    #[track_caller]
    pub(crate) fn fails(&self, words: &(impl Words + ?Sized)) -> String {
        let output = self.run(words);
        assert_ne!(output.status.code(), Some(0), "{:?}", words.words());
        stderr(&output)
    }

    /// That a run ends with a code, and that what it said has all of `says`.
    #[track_caller]
    pub(crate) fn refused_as(&self, words: &(impl Words + ?Sized), code: i32, says: &[&str]) {
        let said = self.refused(words, code);
        for text in says {
            assert!(said.contains(text), "{text}: {said}");
        }
    }

    /// What a run with `--json` writes.
    #[track_caller]
    pub(crate) fn json(&self, words: &(impl Words + ?Sized)) -> Value {
        let words = [words.words(), vec!["--json".to_owned()]].concat();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        serde_json::from_slice(&self.done(&words).stdout).unwrap()
    }
}

/// The example model in `dir`, with its weights edited by name.
pub(crate) fn example(dir: &Path, edit: impl FnMut(&str, &mut [u8])) -> PathBuf {
    let from = Path::new(EXAMPLE);
    let model = dir.join("model");
    fs::create_dir(&model).unwrap();
    for name in ["config.json", "tokenizer.json"] {
        fs::copy(from.join(name), model.join(name)).unwrap();
    }
    let mut bytes = fs::read(from.join("model.safetensors")).unwrap();
    for_each_tensor(&mut bytes, edit);
    fs::write(model.join("model.safetensors"), bytes).unwrap();
    model
}

/// The example model in `dir/model`, in three shards with an index.
pub(crate) fn sharded_example(dir: &Path) -> PathBuf {
    let model = example(dir, |_, _| {});
    let bytes = fs::read(model.join("model.safetensors")).unwrap();
    fs::remove_file(model.join("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut all: Vec<_> = tensors.iter().collect();
    all.sort_by_key(|(name, _)| (*name).to_owned());
    let mut map = serde_json::Map::new();
    let share = all.len().div_ceil(3);
    for (at, part) in all.chunks(share).enumerate() {
        let file = format!("model-0000{}-of-00003.safetensors", at + 1);
        for (name, _) in part {
            map.insert((*name).to_owned(), file.clone().into());
        }
        let part = part.iter().map(|(name, tensor)| (name, tensor));
        let shard = safetensors::serialize(part, None).unwrap();
        fs::write(model.join(file), shard).unwrap();
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    let path = model.join("model.safetensors.index.json");
    fs::write(path, index.to_string()).unwrap();
    model
}

/// What a run says of itself in its output: its command and its times, which are another run's no more.
const CARD: [&str; 2] = ["README.md", "report.json"];

/// Every file below a directory with its bytes, by its path in it.
pub(crate) fn tree(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    let mut directories = vec![dir.to_path_buf()];
    while let Some(at) = directories.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if !CARD.iter().any(|name| path.ends_with(name)) {
                let within = path.strip_prefix(dir).unwrap().to_path_buf();
                all.push((within, fs::read(&path).unwrap()));
            }
        }
    }
    all.sort();
    all
}

/// Every tensor of a safetensors file: its name and its bytes.
pub(crate) fn for_each_tensor(file: &mut [u8], mut each: impl FnMut(&str, &mut [u8])) {
    let (len, rest) = file.split_at_mut(8);
    let len = usize::try_from(u64::from_le_bytes((*len).try_into().unwrap())).unwrap();
    let (header, data) = rest.split_at_mut(len);
    let header: Value = serde_json::from_slice(header).unwrap();
    for (name, entry) in header.as_object().unwrap() {
        if let Some(offsets) = entry["data_offsets"].as_array() {
            let [begin, end] = [0, 1].map(|i| offsets[i].as_u64().unwrap() as usize);
            each(name, &mut data[begin..end]);
        }
    }
}

pub(crate) fn prune(model: &Path, out: &Path, options: &[&str]) -> Output {
    program()
        .arg("prune")
        .arg(model)
        .arg("-o")
        .arg(out)
        .args(["--device", "cpu"])
        .args(options)
        .output()
        .unwrap()
}

/// How often the built-in text is repeated, so that a signal finds the calibration under way.
pub(crate) const LONG_TEXT: usize = 2;

/// A run in `dir` whose output is staged.
pub(crate) fn under_way(dir: &Path) -> Child {
    example(dir, |_, _| {});
    let text = fs::read_to_string("src/text/builtin.txt").unwrap();
    fs::write(dir.join("text.txt"), text.repeat(LONG_TEXT)).unwrap();
    let run = start(dir);
    wait_until(|| !staged(dir).is_empty());
    run
}

/// A run from `model` to `out` that calibrates for long.
pub(crate) fn start(dir: &Path) -> Child {
    program()
        .arg("prune")
        .arg(dir.join("model"))
        .arg("-o")
        .arg(dir.join("out"))
        .arg("--calibration")
        .arg(dir.join("text.txt"))
        .args(["--tokens", "12000", "--device", "cpu"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

pub(crate) fn kill(run: &Child, signal: &str) {
    let id = run.id().to_string();
    let status = Command::new("kill").args(["-s", signal, &id]).status();
    assert!(status.unwrap().success());
}

/// Whether this process, and so what it starts, ignores a signal: a job in the background of a shell ignores SIGINT.
pub(crate) fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

pub(crate) fn wait_until(done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed().as_secs() < 120, "nothing happened");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What is staged in a directory.
pub(crate) fn staged(dir: &Path) -> Vec<String> {
    let mut names = names(dir);
    names.retain(|name| name.starts_with(".out."));
    names
}

/// All names in a directory, hidden ones too.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
