//! What the fuzz targets and `tests/hostile.rs` do with bytes from a stranger: each hands them to the library as the file they
//! pretend to be, and goes on with what it makes of them as far as a run does before it writes.
//!
//! This file is compiled into both.

use std::fs;
use std::path::{Path, PathBuf};

use swiftprune_wgpu::bench::{Records, compare::compare};
use swiftprune_wgpu::calibration::Text;
use swiftprune_wgpu::checkpoint::Checkpoint;
use swiftprune_wgpu::evaluation::Windows;
use swiftprune_wgpu::internals::Architecture;
use swiftprune_wgpu::norms::Norms;
use swiftprune_wgpu::parts::read_records;
use swiftprune_wgpu::plan::{Draft, NameFilter, NormsSource, Options, Selection};
use swiftprune_wgpu::report::asked;
use swiftprune_wgpu::report::page::{Document, page, parse};
use swiftprune_wgpu::sweep::read_state;
use swiftprune_wgpu::untrusted;

/// A target: its name, which its corpus has too, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 13] = [
    ("header", header),
    ("index", index),
    ("gguf", gguf),
    ("dat", dat),
    ("norms", norms),
    ("config", config),
    ("tokenizer", tokenizer),
    ("tokens", tokens),
    ("report", report),
    ("bench", bench),
    ("parts", parts),
    ("state", state),
    ("globs", globs),
];

/// The repository's directory, wherever this is compiled.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    if here.ends_with("fuzz") {
        here.join("..")
    } else {
        here.to_path_buf()
    }
}

/// A file of weights.
pub fn header(bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    fs::write(&path, bytes).unwrap();
    draft(&path);
}

/// An index beside two shards, and beside a third file outside of its directory.
pub fn index(bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    fs::create_dir(&model).unwrap();
    fs::write(model.join("a.safetensors"), shard("a", &[1, 2, 3, 4])).unwrap();
    fs::write(model.join("b.safetensors"), shard("b", &[5, 6, 7, 8])).unwrap();
    // Too long to be read by chance: whatever is made of it would show.
    fs::write(dir.path().join("outside.safetensors"), shard("a", &[9; 4])).unwrap();
    fs::write(model.join("model.safetensors.index.json"), bytes).unwrap();
    if let Ok(checkpoint) = open(&model) {
        for shard in &checkpoint.shards {
            let real = shard.path.canonicalize().unwrap();
            let inside = real.starts_with(model.canonicalize().unwrap());
            assert!(inside, "read outside of the model: {}", real.display());
        }
    }
}

/// An importance matrix of llama.cpp, as GGUF.
pub fn gguf(bytes: &[u8]) {
    read_norms(bytes, "x.gguf");
}

/// The older importance matrix.
pub fn dat(bytes: &[u8]) {
    read_norms(bytes, "x.dat");
}

/// A norms file of our own.
pub fn norms(bytes: &[u8]) {
    read_norms(bytes, "x.safetensors");
}

/// A config.json beside weights of a small llama.
pub fn config(bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    link(dir.path(), "model.safetensors");
    fs::write(dir.path().join("config.json"), bytes).unwrap();
    if let Ok(checkpoint) = open(dir.path()) {
        let _ = Architecture::of(&checkpoint);
    }
    draft(dir.path());
}

/// A tokenizer.json beside a model that can be run.
pub fn tokenizer(bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    link(dir.path(), "model.safetensors");
    link(dir.path(), "config.json");
    fs::write(dir.path().join("tokenizer.json"), bytes).unwrap();
    if let Ok(checkpoint) = open(dir.path()) {
        let text = Text::new(
            "text",
            "A text of some words, and numbers: 12345. Ünïcödé 東京.",
        );
        let _ = Windows::new(&checkpoint, &text, Some(8), Some(32));
    }
}

/// The parts of a tokenizer.json that change a text, as a JSON object on the first line, in the place of the example's; below
/// it, the text.
pub fn tokens(bytes: &[u8]) {
    let end = bytes.iter().position(|&byte| byte == b'\n');
    let (parts, text) = bytes.split_at(end.unwrap_or(bytes.len()));
    let parts: serde_json::Result<serde_json::Map<String, serde_json::Value>> =
        serde_json::from_slice(parts);
    let example = fs::read(root().join("examples/tiny-llama/tokenizer.json")).unwrap();
    let mut file: serde_json::Value = serde_json::from_slice(&example).unwrap();
    for (name, part) in parts.unwrap_or_default() {
        file[name] = part;
    }
    let dir = tempfile::tempdir().unwrap();
    link(dir.path(), "model.safetensors");
    link(dir.path(), "config.json");
    fs::write(dir.path().join("tokenizer.json"), file.to_string()).unwrap();
    let checkpoint = open(dir.path()).unwrap();
    let text = Text::new("text", String::from_utf8_lossy(text).into_owned());
    for tokens in [Some(32), None] {
        let _ = Windows::new(&checkpoint, &text, Some(8), tokens);
    }
}

/// A report of `prune` or of `sweep`, which becomes a page.
pub fn report(bytes: &[u8]) {
    match parse(bytes) {
        Ok(Document::Run(run)) => drop(page(&[(*run).clone(), *run], &[])),
        Ok(Document::Sweep(sweep)) => {
            let _ = sweep.to_csv();
            drop(page(&[], &[*sweep]));
        }
        _ => {}
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("report.json");
    fs::write(&path, bytes).unwrap();
    let _ = asked(&path);
}

/// Records of `bench`, which are compared with themselves.
pub fn bench(bytes: &[u8]) {
    let Ok(records) = Records::read(bytes) else {
        return;
    };
    for record in &records.records {
        for case in &record.cases {
            let _ = (case.summary(), case.rate(case.bytes));
            let _ = (record.share_of_copy(case), record.share_of_product(case));
        }
        let _ = compare(record, record);
    }
    let _ = untrusted::json(&records);
}

/// What is kept beside finished shards: of the run, and of a shard.
pub fn parts(bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let manifest = dir.path().join("manifest");
    fs::create_dir(&manifest).unwrap();
    // Two JSON texts one after the other, or one for both.
    let end = bytes.windows(2).position(|two| two == b"\n{");
    let (run, shard) = match end {
        Some(end) => bytes.split_at(end),
        None => (bytes, bytes),
    };
    fs::write(manifest.join("run.json"), run).unwrap();
    fs::write(manifest.join("model.safetensors.json"), shard).unwrap();
    let _ = read_records(dir.path());
}

/// A file of the finished cells of a sweep.
pub fn state(bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    fs::write(&path, bytes).unwrap();
    let _ = read_state(&path);
}

/// Globs, one a line: the first half includes, the second excludes. They are tried on the example's tensors.
pub fn globs(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let globs: Vec<&str> = text.lines().take(16).collect();
    let (include, exclude) = globs.split_at(globs.len().div_ceil(2));
    match NameFilter::new(include, exclude) {
        Ok(targets) => {
            let mut options = Options::new(Selection::Exact { sparsity: 0.5 });
            options.targets = targets;
            let checkpoint = open(&root().join("examples/tiny-llama")).unwrap();
            let _ = Draft::new(checkpoint, options, NormsSource::None);
        }
        Err(error) => drop(error.to_string()),
    }
}

fn open(path: &Path) -> Result<Checkpoint, swiftprune_wgpu::checkpoint::Error> {
    Checkpoint::open(path.to_str().unwrap())
}

/// Opens and plans, as `prune --dry-run` does.
fn draft(path: &Path) {
    if let Ok(checkpoint) = open(path) {
        let options = Options::new(Selection::Exact { sparsity: 0.5 });
        let _ = Draft::new(checkpoint, options, NormsSource::None);
    }
}

fn read_norms(bytes: &[u8], name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    if let Ok(norms) = Norms::read(&path) {
        for weight in ["blk.0.ffn_up.weight", "model.layers.0.mlp.up_proj.weight"] {
            for expert in [None, Some(0), Some(usize::MAX)] {
                let _ = norms.get(weight, expert, 8);
            }
        }
    }
}

/// A file of the example model, under its name. A hard link would change its ctime, which others take for a write.
fn link(dir: &Path, name: &str) {
    let from = root().join("examples/tiny-llama").join(name);
    let to = dir.join(name);
    #[cfg(unix)]
    std::os::unix::fs::symlink(&from, &to).unwrap();
    #[cfg(not(unix))]
    fs::copy(&from, &to).unwrap();
}

/// A safetensors file of one tensor of bytes.
fn shard(name: &str, data: &[u8]) -> Vec<u8> {
    let len = data.len();
    let json = format!(r#"{{"{name}":{{"dtype":"U8","shape":[{len}],"data_offsets":[0,{len}]}}}}"#);
    let mut file = (json.len() as u64).to_le_bytes().to_vec();
    file.extend(json.as_bytes());
    file.extend(data);
    file
}
