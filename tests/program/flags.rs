//! Every pair of flags of every command: it is refused with exit code 2, or each of the two changes something that can be seen:
//! the exit code, what is printed, or a file.
//!
//! The flags are those that `--help` lists, so a new one is among them by itself; one with a value needs a sample in
//! [`samples`]. The program runs on a small model, in a directory of its own for every run.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::place::PROGRAM;

/// Flags whose effect a small run on one machine does not show: speed, durability, another device, a run that was stopped,
/// what a terminal shows, weights that are not finite. What they are beside must show all the same; [`IDLE`] has the pairs in
/// which they would do nothing.
const UNSEEN: &[&str] = &[
    "threads",
    "sync",
    "device",
    "resume",
    "verbose",
    "color",
    "keep-non-finite",
];

/// Pairs of a flag of [`UNSEEN`] and one that leaves it nothing to do.
const IDLE: &[(&str, &str, &str)] = &[
    ("prune", "sync", "dry-run"),
    ("prune", "sync", "part"),
    ("prune", "resume", "dry-run"),
    ("prune", "keep-non-finite", "dry-run"),
];

/// A command, and the arguments without which it does not run.
const COMMANDS: &[(&str, &[&str])] = &[
    ("prune", &["model"]),
    ("sweep", &["model"]),
    ("calibrate", &["model"]),
    ("eval", &["model"]),
    ("inspect", &["model"]),
    ("merge", &["out"]),
    ("verify", &["model", "attention"]),
    ("report", &["run.json"]),
    ("devices", &[]),
];

/// Commands without flags of their own, of which the general ones have nothing to do.
const WITHOUT_FLAGS: &[&str] = &["completions", "man"];

/// Commands that measure times, or take long: no pair of theirs is run. [`bench_refuses_what_it_would_ignore`] has them.
const MEASURING: &[&str] = &["bench", "selftest"];

/// What a flag is given, in one way or several.
fn samples(command: &str, flag: &str) -> &'static [&'static str] {
    match (command, flag) {
        (_, "color") => &["always"],
        (_, "threads") => &["1"],
        (_, "device") => &["cpu"],
        ("report", "output") => &["other.html"],
        ("sweep", "output") => &["table.json"],
        (_, "output") => &["other"],
        ("verify", "sparsity") => &["0.5"],
        (_, "sparsity") => &["0.3"],
        (_, "pattern") => &["2:4"],
        (_, "lambda") => &["-0.5"],
        (_, "allocate") => &["atp", "owl"],
        (_, "spread") => &["0.05"],
        (_, "score") => &["wanda", "magnitude"],
        (_, "selection") => &["exact"],
        (_, "block-size") => &["32"],
        (_, "gain") => &["1/2"],
        (_, "compensate" | "sketch") => &["8"],
        (_, "ridge") => &["0.5"],
        ("merge", "norms") => &["same.norms"],
        (_, "norms") => &["norms"],
        (_, "calibration") => &["long.txt", "none"],
        (_, "text" | "eval-text") => &["long.txt"],
        (_, "tokens" | "eval-tokens") => &["300"],
        (_, "context") => &["32"],
        (_, "include") => &["*.self_attn.*_proj.weight"],
        (_, "exclude") => &["*.k_proj.weight"],
        (_, "part") => &["1/2"],
        ("verify", "report") => &["attention.json"],
        (_, "report") => &["report.json"],
        (_, "state") => &["state"],
        (_, "against") => &["pruned"],
        (_, "from") => &["elsewhere"],
        (_, "model") => &["same"],
        _ => panic!("no sample for --{flag} of {command}: what is it given?"),
    }
}

/// A flag with its value.
#[derive(Clone, Debug, PartialEq)]
struct Flag {
    name: String,
    value: Option<&'static str>,
}

impl Flag {
    fn new(name: &str, value: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            value: Some(value),
        }
    }

    fn is_unseen(&self, command: &str) -> bool {
        // These have nothing on stderr but progress on a terminal.
        let has_progress_alone = ["eval", "inspect", "verify"].contains(&command);
        UNSEEN.contains(&self.name.as_str()) || has_progress_alone && self.name == "quiet"
    }
}

/// The flags of a command, each with its samples.
fn flags(command: &str) -> Vec<Flag> {
    let help = run(Path::new("."), &[command, "--help"]);
    let help = String::from_utf8(help.stdout).unwrap();
    let mut flags = Vec::new();
    for (name, takes_value) in flag_names(&help) {
        if takes_value {
            let values = samples(command, &name).iter();
            flags.extend(values.map(|value| Flag::new(&name, value)));
        } else {
            flags.push(Flag { name, value: None })
        }
    }
    flags
}

fn run(dir: &Path, words: &[impl AsRef<std::ffi::OsStr>]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.current_dir(dir).args(words);
    // Adapters differ from machine to machine; without any, `auto` is the CPU.
    command
        .env("VK_DRIVER_FILES", "/nowhere")
        .env("VK_ICD_FILENAMES", "/nowhere");
    command.output().unwrap()
}

/// The flags that come with these: what they need to mean anything, and what keeps a run short.
fn companions(command: &str, flags: &[&Flag]) -> Vec<Flag> {
    let has = |name: &str| flags.iter().any(|flag| flag.name == name);
    let mut all = Vec::new();
    let mut add = |is_needed: bool, name: &str, value: &'static str| {
        if is_needed && !has(name) {
            all.push(Flag::new(name, value));
        }
    };
    let has_device = !["inspect", "merge", "verify", "report", "devices"].contains(&command);
    add(has_device, "device", "cpu");
    add(has("spread"), "allocate", "atp");
    add(has("ridge"), "compensate", "8");
    add(has("part"), "norms", "norms");
    add(command == "sweep", "eval-text", "short.txt");
    add(command == "calibrate", "output", "measured");
    // The table on stdout does not say the rule.
    let needs_table = has("force") || has("selection");
    add(command == "sweep" && needs_table, "output", "table.json");
    add(command == "report", "output", "page.html");
    // Where the model and the norms were is said in the report alone.
    add(
        command == "merge" && has("no-card"),
        "report",
        "report.json",
    );
    all
}

/// The words of a command line.
fn words(command: &str, flags: &[&Flag]) -> Vec<String> {
    let (_, arguments) = COMMANDS.iter().find(|(name, _)| *name == command).unwrap();
    let mut words = vec![command.to_owned()];
    words.extend(arguments.iter().map(|&argument| argument.to_owned()));
    for flag in flags {
        words.push(match flag.value {
            // A value may begin with a dash, and a flag's value may be left out.
            Some(value) => format!("--{}={value}", flag.name),
            None => format!("--{}", flag.name),
        });
    }
    words
}

/// A small model that can be calibrated, in two files, with what commands take beside it; made once.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let made = TEMPLATE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("model")).unwrap();
        write_model(&at("model"));
        let text = fs::read_to_string(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/examples/tiny-llama/heldout.txt"
        ))
        .unwrap();
        fs::write(at("short.txt"), text.chars().take(400).collect::<String>()).unwrap();
        fs::write(
            at("long.txt"),
            text.chars().skip(400).take(8000).collect::<String>(),
        )
        .unwrap();
        for words in [
            "calibrate model -o norms --text long.txt --sketch 8 --means --device cpu",
            "prune model -o pruned --report run.json --device cpu",
            // Without a report in it, which would say what flags of `verify` say.
            "prune model -o attention --no-card --report attention.json --pattern 2:4 --include *.self_attn.*_proj.weight --device cpu",
        ] {
            let words: Vec<&str> = words.split(' ').collect();
            let done = run(dir.path(), &words);
            assert!(
                done.status.success(),
                "{words:?}: {}",
                String::from_utf8_lossy(&done.stderr)
            );
        }
        dir
    });
    made.path()
}

/// The model of `tests/forward/llama` in two files, with a tokenizer of characters.
fn write_model(dir: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/forward/llama");
    fs::copy(from.join("config.json"), dir.join("config.json")).unwrap();
    let bytes = fs::read(from.join("model.safetensors")).unwrap();
    let (len, rest) = bytes.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*len) as usize);
    let header: BTreeMap<String, Value> = serde_json::from_slice(header).unwrap();
    let mut index = BTreeMap::new();
    for (number, of_shard) in [(1, false), (2, true)] {
        let file = format!("model-{number:05}-of-00002.safetensors");
        let (mut own, mut all) = (BTreeMap::new(), Vec::<u8>::new());
        for (name, tensor) in header.iter().filter(|(name, _)| *name != "__metadata__") {
            if name.contains("layers.1.") != of_shard {
                continue;
            }
            let offset = |at: usize| tensor["data_offsets"][at].as_u64().unwrap() as usize;
            let begin = all.len();
            all.extend(&data[offset(0)..offset(1)]);
            let mut tensor = tensor.clone();
            tensor["data_offsets"] = json!([begin, all.len()]);
            own.insert(name, tensor);
            index.insert(name, file.clone());
        }
        let header = serde_json::to_vec(&own).unwrap();
        let mut whole = (header.len() as u64).to_le_bytes().to_vec();
        whole.extend(header);
        whole.extend(all);
        fs::write(dir.join(&file), whole).unwrap();
    }
    let index = json!({ "metadata": {}, "weight_map": index });
    fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
    let characters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,'-:";
    let mut vocabulary: BTreeMap<String, usize> = BTreeMap::from([("?".to_owned(), 0)]);
    vocabulary.extend(
        (1..)
            .zip(characters.chars())
            .map(|(id, c)| (c.to_string(), id)),
    );
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "?", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": [],
        },
    });
    fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
}

fn copy(from: &Path, to: &Path) {
    if from.is_file() {
        fs::copy(from, to).unwrap();
        return;
    }
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        copy(&entry.path(), &to.join(entry.file_name()));
    }
}

/// A directory for one run: the template, and what flags of `all` need to find there.
fn place(command: &str, all: &[&Flag]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy(template(), dir.path());
    let at = |name: &str| dir.path().join(name);
    let has = |name: &str| all.iter().any(|flag| flag.name == name);
    if command == "merge" {
        for part in ["1/2", "2/2"] {
            let words = [
                "prune", "model", "-o", "out", "--norms", "norms", "--device", "cpu", "--part",
                part,
            ];
            assert!(run(dir.path(), &words).status.success());
        }
        copy(&at("norms"), &at("same.norms"));
        copy(&at("model"), &at("same"));
        if has("from") {
            fs::rename(at("out.parts"), at("elsewhere")).unwrap();
        }
    }
    if has("force") {
        let outputs: &[(&str, &str)] = match command {
            "prune" => &[("pruned", "model-pruned"), ("pruned", "other")],
            "merge" => &[("pruned", "out")],
            "sweep" => &[("run.json", "table.json")],
            "report" => &[("run.json", "page.html"), ("run.json", "other.html")],
            _ => &[("norms", "measured"), ("norms", "other")],
        };
        for (from, to) in outputs {
            copy(&at(from), &at(to));
        }
    }
    dir
}

/// What can be seen of a run.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    /// By name, a hash of what is in them.
    files: BTreeMap<PathBuf, u64>,
}

/// The same, of a run that may have been seen before: each flag alone is compared with all others.
fn seen_once(command: &str, flags: &[&Flag], all: &[&Flag]) -> Arc<Seen> {
    static KNOWN: Mutex<BTreeMap<String, Arc<Seen>>> = Mutex::new(BTreeMap::new());
    let finds = all
        .iter()
        .filter(|flag| ["force", "from"].contains(&flag.name.as_str()));
    let key = format!(
        "{:?} {:?}",
        words(command, flags),
        finds.collect::<Vec<_>>()
    );
    if let Some(known) = KNOWN.lock().get(&key) {
        return Arc::clone(known);
    }
    let seen = Arc::new(seen(command, flags, all));
    KNOWN.lock().insert(key, Arc::clone(&seen));
    seen
}

fn seen(command: &str, flags: &[&Flag], all: &[&Flag]) -> Seen {
    let dir = place(command, all);
    let done = run(dir.path(), &words(command, flags));
    let mut files = BTreeMap::new();
    read_all(dir.path(), dir.path(), &mut files);
    let text = |bytes: &[u8]| without_times(&String::from_utf8_lossy(bytes));
    let mut stderr: Vec<String> = text(&done.stderr).lines().map(str::to_owned).collect();
    // Tensors are finished in any order.
    stderr.iter_mut().for_each(|line| {
        if let (true, Some(end)) = (line.starts_with('['), line.find(']')) {
            line.replace_range(..end, "");
        }
    });
    stderr.sort();
    Seen {
        code: done.status.code(),
        stdout: text(&done.stdout),
        stderr: stderr.join("\n"),
        files,
    }
}

/// The files of a place, without what says when or with which words they were made.
fn read_all(root: &Path, dir: &Path, files: &mut BTreeMap<PathBuf, u64>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_path_buf();
        if path.is_dir() {
            read_all(root, &path, files);
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        let is_page = name.extension().is_some_and(|end| end == "html");
        let is_record = name.components().any(|part| part.as_os_str() == "manifest");
        let kept = match std::str::from_utf8(&bytes) {
            _ if is_page || is_record => Vec::new(),
            Ok(text) => without_times(text).into_bytes(),
            Err(_) => bytes,
        };
        let mut hasher = DefaultHasher::new();
        kept.hash(&mut hasher);
        files.insert(name, hasher.finish());
    }
}

/// A text without times, and without the words of the command line: as JSON, as lines of JSON, or as it is.
fn without_times(text: &str) -> String {
    if let Ok(mut value) = serde_json::from_str::<Value>(text) {
        strip(&mut value);
        return value.to_string();
    }
    let mut lines = Vec::new();
    for line in text
        .lines()
        .filter(|line| !line.contains("swiftprune-wgpu "))
    {
        if let Ok(mut value) = serde_json::from_str::<Value>(line) {
            strip(&mut value);
            lines.push(value.to_string());
            continue;
        }
        let mut words: Vec<&str> = line.split(' ').collect();
        for index in 1..words.len() {
            let unit = words[index].trim_end_matches([',', '.', ')', ';']);
            if ["s", "ms", "GB/s", "MB/s", "tokens/s"].contains(&unit) {
                words[index - 1] = "#";
            }
        }
        lines.push(words.join(" "));
    }
    lines.join("\n")
}

fn strip(value: &mut Value) {
    const TIMES: &[&str] = &[
        "command",
        "seconds",
        "phases",
        "stages",
        "tokens_per_second",
        "estimated_seconds",
        "peak_memory_bytes",
        "plain_copy",
    ];
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !TIMES.contains(&key.as_str()));
            map.values_mut().for_each(strip);
        }
        Value::Array(all) => all.iter_mut().for_each(strip),
        _ => {}
    }
}

/// What is wrong with a pair, if anything is.
fn fault(command: &str, first: &Flag, second: &Flag) -> Option<String> {
    let companions = companions(command, &[first, second]);
    let mut all: Vec<&Flag> = companions.iter().collect();
    all.extend([first, second]);
    let both = seen(command, &all, &all);
    let line = words(command, &all).join(" ");
    if both.code == Some(2) {
        return None;
    }
    // What is so in any case may be said.
    let says_what_is_so =
        [first, second].map(|flag| flag.value) == [Some("magnitude"), Some("none")];
    if both.code == Some(0) && says_what_is_so {
        return None;
    }
    let is_idle = |a: &Flag, b: &Flag| IDLE.contains(&(command, &a.name, &b.name));
    if is_idle(first, second) || is_idle(second, first) {
        return Some(format!("{line}: not refused"));
    }
    if !matches!(both.code, Some(0 | 3)) {
        return Some(format!("{line}: {:?}, {}", both.code, both.stderr));
    }
    if command == "verify" && both.code == Some(3) {
        // It ends at the first fault, whatever else it was asked for.
        return None;
    }
    for flag in [first, second] {
        let others: Vec<&Flag> = all.iter().copied().filter(|other| *other != flag).collect();
        if !flag.is_unseen(command) && *seen_once(command, &others, &all) == both {
            return Some(format!("{line}: --{} changes nothing", flag.name));
        }
    }
    None
}

/// What is wrong with the pairs of some commands, `workers` at a time.
fn faults(commands: &[&'static str]) -> Vec<String> {
    let mut pairs = Vec::new();
    for command in commands {
        let flags = flags(command);
        assert!(flags.len() > 3, "{command}: {flags:?}");
        for (index, first) in flags.iter().enumerate() {
            let others = flags[index + 1..]
                .iter()
                .filter(|other| other.name != first.name);
            pairs.extend(others.map(|second| (*command, first.clone(), second.clone())));
        }
    }
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((command, first, second)) =
                    pairs.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    wrong.lock().extend(fault(command, first, second));
                }
            });
        }
    });
    eprintln!("{commands:?}: {} pairs", pairs.len());
    wrong.into_inner()
}

#[track_caller]
fn assert_none(faults: &[String]) {
    assert!(
        faults.is_empty(),
        "{}:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

#[test]
fn a_pair_of_flags_of_prune_is_refused_or_both_do_something() {
    assert_none(&faults(&["prune"]));
}

#[test]
fn a_pair_of_flags_of_sweep_is_refused_or_both_do_something() {
    assert_none(&faults(&["sweep"]));
}

#[test]
fn a_pair_of_flags_of_any_other_command_is_refused_or_both_do_something() {
    let others = COMMANDS.iter().map(|(name, _)| *name);
    let others: Vec<_> = others
        .filter(|name| !["prune", "sweep"].contains(name))
        .collect();
    assert_none(&faults(&others));
}

/// The same run twice shows the same, and a flag that changes nothing is noticed.
#[test]
fn what_is_compared_is_what_flags_change() {
    let sparsity = Flag::new("sparsity", "0.5");
    let device = Flag::new("device", "cpu");
    let with = seen("prune", &[&device, &sparsity], &[]);
    assert_eq!(with.code, Some(0), "{}", with.stderr);
    assert_eq!(with, seen("prune", &[&device, &sparsity], &[]));
    // The default, said aloud.
    assert_eq!(with, seen("prune", &[&device], &[]));
    let found = fault("prune", &sparsity, &Flag::new("exclude", "*.k_proj.weight"));
    assert!(found.unwrap().contains("--sparsity changes nothing"));
}

/// A pair that is refused says which two flags do not go together.
#[test]
fn a_value_that_leaves_a_flag_nothing_to_do_is_refused_by_both_names() {
    for (line, says) in [
        (
            "prune model --selection exact --block-size 128",
            ["--block-size", "--selection exact"],
        ),
        (
            "prune model --selection exact --gain 1/8",
            ["--gain", "--selection exact"],
        ),
        (
            "prune model --pattern 2:4 --block-size 128",
            ["--block-size", "--pattern"],
        ),
        (
            "prune model --pattern 2:4 --gain 1/8",
            ["--gain", "--pattern"],
        ),
        (
            "prune model --pattern 2:4 --selection ewma",
            ["--selection", "--pattern"],
        ),
        (
            "prune model --lambda 0 --selection exact",
            ["--selection", "--lambda"],
        ),
        (
            "prune model --allocate uniform --spread 0.1",
            ["--spread", "--allocate uniform"],
        ),
        (
            "prune model --calibration none --tokens 4096",
            ["--tokens", "--calibration none"],
        ),
        (
            "prune model --calibration none --context 32",
            ["--context", "--calibration none"],
        ),
        (
            "prune model --norms norms --calibration none",
            ["--norms", "--calibration"],
        ),
        (
            "prune model --norms norms --tokens 9",
            ["--norms", "--tokens"],
        ),
        (
            "prune model --norms norms --context 32",
            ["--context", "--norms"],
        ),
        (
            "prune model --norms norms --score magnitude",
            ["--norms", "--score magnitude"],
        ),
        (
            "prune model --tokens 9 --score magnitude",
            ["--tokens", "--score magnitude"],
        ),
        (
            "prune model --calibration long.txt --score magnitude",
            ["--calibration", "--score magnitude"],
        ),
        (
            "prune model --dry-run --checksum",
            ["--dry-run", "--checksum"],
        ),
        (
            "prune model/model-00001-of-00002.safetensors --calibration none --no-card",
            ["--no-card", "single file"],
        ),
        (
            "prune model/model-00001-of-00002.safetensors --calibration none --resume",
            ["--resume", "single file"],
        ),
        (
            "sweep model --pattern 2:4 --selection ewma",
            ["--selection", "--pattern"],
        ),
        (
            "sweep model --pattern 2:4 --allocate uniform",
            ["--allocate", "--pattern"],
        ),
        (
            "sweep model --allocate uniform --spread 0.1",
            ["--spread", "--allocate uniform"],
        ),
        (
            "sweep model --compensate off --ridge 0.1",
            ["--ridge", "--compensate off"],
        ),
        (
            "sweep model --norms norms --score magnitude",
            ["--norms", "--score magnitude"],
        ),
        (
            "sweep model --calibration none --tokens 9",
            ["--tokens", "--calibration none"],
        ),
        ("sweep model --force", ["--output", "--force"]),
        ("verify model pruned --verbose", ["--verbose", "`verify`"]),
        ("devices --json --quiet", ["--quiet", "--json"]),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let done = run(template(), &words);
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{line}: {said}");
        assert!(
            says.iter().all(|what| said.contains(what)),
            "{line}: {said}"
        );
    }
}

/// A lone file of weights is not calibrated, so what says how has nothing to do.
#[test]
fn what_says_how_to_calibrate_is_refused_where_nothing_is_calibrated() {
    let dir = tempfile::tempdir().unwrap();
    let shard = "model-00001-of-00002.safetensors";
    copy(
        &template().join("model").join(shard),
        &dir.path().join(shard),
    );
    for flag in ["--tokens=9", "--context=9"] {
        let done = run(dir.path(), &["prune", shard, flag, "--device", "cpu"]);
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{said}");
        assert!(said.contains(&flag[..flag.len() - 2]), "{said}");
    }
}

/// Of `bench`, what is measured and how it is shown go together; what says how to measure does nothing where nothing is measured.
#[test]
fn bench_refuses_what_it_would_ignore() {
    let measured: &[&[&str]] = &[
        &["--quick"],
        &["--samples", "10"],
        &["--dtype", "bf16"],
        &["--dir", "."],
        &["--no-files"],
        &["--device", "cpu"],
        &["--threads", "1"],
    ];
    let shown: &[&[&str]] = &[&["--json"], &["--markdown"], &["--submit-text"]];
    let read: &[&str] = &["--read", "records.json"];
    let compare: &[&str] = &["--compare", "a.json", "b.json"];
    let mut known: Vec<&str> = [measured, shown, &[read, compare]]
        .concat()
        .iter()
        .map(|flag| &flag[0][2..])
        .collect();
    known.extend(["quiet", "verbose", "color"]);
    known.sort_unstable();
    let help = run(Path::new("."), &["bench", "--help"]);
    let help = String::from_utf8(help.stdout).unwrap();
    for (name, _) in flag_names(&help) {
        assert!(
            known.contains(&name.as_str()),
            "--{name}: which of bench's flags does it go with?"
        );
    }
    let refused = |words: &[&[&str]]| {
        let words = [&[&["bench"][..]], words].concat().concat();
        let done = run(Path::new("."), &words);
        assert_eq!(done.status.code(), Some(2), "{words:?}");
    };
    for flag in measured {
        refused(&[read, flag]);
        refused(&[compare, flag]);
    }
    for (index, flag) in shown.iter().enumerate() {
        refused(&[compare, flag]);
        shown[..index]
            .iter()
            .for_each(|other| refused(&[flag, other]));
    }
    refused(&[read, compare]);
    refused(&[&["--no-files"], &["--dir", "."]]);
}

#[test]
fn no_command_is_left_out() {
    let help = run(Path::new("."), &["--help"]);
    let help = String::from_utf8(help.stdout).unwrap();
    let list = help.split("Commands:").nth(1).unwrap();
    let list = list.split("Options:").next().unwrap();
    let names = list
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<&str> = names
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let is_known = COMMANDS.iter().any(|(known, _)| *known == name)
            || WITHOUT_FLAGS.contains(&name)
            || MEASURING.contains(&name);
        assert!(is_known, "{name}");
    }
    for (name, argument) in WITHOUT_FLAGS.iter().zip(["bash", "prune"]) {
        for flag in ["--quiet", "--verbose"] {
            let done = run(Path::new("."), &[name, argument, flag]);
            assert_eq!(done.status.code(), Some(2), "{name} {flag}");
        }
    }
}

/// The long names of the flags in a help text, and whether they take a value.
fn flag_names(help: &str) -> Vec<(String, bool)> {
    let lines = help
        .lines()
        .map(str::trim_start)
        .filter(|line| line.starts_with('-'));
    let longs = lines.filter_map(|line| line.split_once("--").map(|(_, long)| long));
    let names = longs.map(|long| {
        let end = long.find(|c: char| c != '-' && !c.is_ascii_alphanumeric());
        let (name, rest) = long.split_at(end.unwrap_or(long.len()));
        (name.to_owned(), rest.trim_start().starts_with(['<', '[']))
    });
    names
        .filter(|(name, _)| !["help", "version"].contains(&name.as_str()))
        .collect()
}
