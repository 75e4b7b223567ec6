//! The command line, word for word: `tests/cmd` and every command of the README.
//!
//! `*.trycmd` are commands that write nothing and run here; `*.toml` are commands that write, each in a copy of
//! `examples`, with what belongs on stdout and what on stderr. `TRYCMD=overwrite cargo test --test program cli::` accepts what has
//! changed. All of it runs with `--device cpu`, which is the same on every machine.

use std::fs;
use std::path::{Path, PathBuf};

use crate::place::PROGRAM;

/// A README has at least this many commands, or the test reads it wrongly.
const README_COMMANDS: usize = 9;

fn cases() -> trycmd::TestCases {
    let cases = trycmd::TestCases::new();
    cases.register_bin("swiftprune-wgpu", Path::new(PROGRAM));
    cases
}

#[test]
fn commands_say_what_they_said_before() {
    let cases = cases();
    cases.case("tests/cmd/*.trycmd").case("tests/cmd/*.toml");
}

/// The README's own commands, in order, in a directory that has what they name. Added to them is `--device cpu`; taken
/// from their output is what differs between machines and runs, times and the number of cores. `my-model` is a copy of
/// the example, `my.txt` its held-out text.
#[test]
fn the_commands_of_the_readme_do_what_it_shows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let (text, commands) = readme_as_cases(&readme);
    assert!(commands >= README_COMMANDS, "{commands} commands:\n{text}");

    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("readme");
    let _ = fs::remove_dir_all(&dir);
    let here = dir.join("README.in");
    let example = root.join("examples/tiny-llama");
    copy_directory(&example, &here.join("examples/tiny-llama"));
    copy_directory(&example, &here.join("my-model"));
    fs::copy(example.join("heldout.txt"), here.join("my.txt")).unwrap();
    fs::write(here.join("imatrix.gguf"), importance_matrix()).unwrap();
    fs::write(dir.join("README.trycmd"), text).unwrap();

    cases().case(dir.join("README.trycmd")).run();

    assert!(here.join("examples/tiny-llama-pruned/config.json").exists());
    assert!(here.join("my-model-2-4/model.safetensors").exists());
}

#[test]
fn a_readme_that_promises_something_else_is_noticed() {
    let (text, commands) =
        readme_as_cases("```console\n$ swiftprune-wgpu --version\nswiftprune-wgpu 99\n```\n");
    assert_eq!(commands, 1);
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("readme-that-lies");
    fs::create_dir_all(&dir).unwrap();
    let case = dir.join("lie.trycmd");
    fs::write(&case, text).unwrap();
    let result = std::panic::catch_unwind(|| cases().case(&case).run());
    assert!(
        result.is_err() || std::env::var_os("TRYCMD").is_some(),
        "the case passed"
    );
}

/// The README's `console` and `sh` blocks as trycmd blocks, and how many commands they hold.
fn readme_as_cases(readme: &str) -> (String, usize) {
    let mut text = String::new();
    let mut commands = 0;
    let mut language = None;
    for line in readme.lines() {
        if let Some(info) = line.strip_prefix("```") {
            if language.is_none() {
                language = Some(info);
            } else if language.take() == Some("console") {
                text += "```\n";
            }
            if language == Some("console") {
                text += "```console\n";
            }
            continue;
        }
        match (language, line.strip_prefix("$ ")) {
            (Some("console"), Some(command)) => {
                text += &format!("$ {}\n", on_the_cpu(command));
                commands += 1;
            }
            (Some("console"), None) => {
                text += &without_times(line);
                text.push('\n');
            }
            // Commands without output: what they print does not matter, that they succeed does.
            (Some("sh"), _) if line.starts_with("swiftprune-wgpu ") => {
                text += &format!("```console\n$ {}\n...\n```\n", on_the_cpu(line));
                commands += 1;
            }
            _ => {}
        }
    }
    (text, commands)
}

fn on_the_cpu(command: &str) -> String {
    let command = command.split(" #").next().unwrap_or(command).trim_end();
    let command = command.replace("cargo run --release --", "swiftprune-wgpu");
    if command.contains(" prune ") {
        command + " --device cpu"
    } else {
        command
    }
}

/// A line of output with `[..]` for what differs between machines and runs.
fn without_times(line: &str) -> String {
    if line.starts_with("device  ") {
        return "device  [..]".to_owned();
    }
    for measured in [" MB in ", " tokens in "] {
        if let Some((before, _)) = line.split_once(measured)
            && !line.contains("windows")
        {
            return format!("{before}{measured}[..]");
        }
    }
    line.to_owned()
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Blocks of the example.
const BLOCKS: usize = 4;
/// Weights of a block that are pruned: name here, name in llama.cpp, in_features.
const LAYERS: [(&str, &str, usize); 7] = [
    ("mlp.down_proj", "ffn_down", 512),
    ("mlp.gate_proj", "ffn_gate", 192),
    ("mlp.up_proj", "ffn_up", 192),
    ("self_attn.k_proj", "attn_k", 192),
    ("self_attn.o_proj", "attn_output", 192),
    ("self_attn.q_proj", "attn_q", 192),
    ("self_attn.v_proj", "attn_v", 192),
];

/// An importance matrix for the example, in the older form: the name's ending does not matter.
fn importance_matrix() -> Vec<u8> {
    let int = |value: usize| i32::try_from(value).unwrap().to_le_bytes();
    let mut file = int(BLOCKS * LAYERS.len()).to_vec();
    for block in 0..BLOCKS {
        for (_, name, in_features) in LAYERS {
            let name = format!("blk.{block}.{name}.weight");
            file.extend(int(name.len()));
            file.extend(name.as_bytes());
            file.extend(int(1));
            file.extend(int(in_features));
            file.extend(1.0_f32.to_le_bytes().repeat(in_features));
        }
    }
    file
}
