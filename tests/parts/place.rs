//! A place with a model in three shards, and the program run there.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use crate::common::{sharded_example, stderr};

pub(crate) const FIRST: &str = "model-00001-of-00003.safetensors";
pub(crate) const SECOND: &str = "model-00002-of-00003.safetensors";

/// A directory with the example in three shards.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        sharded_example(dir.path());
        Self { dir }
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_swiftprune-wgpu"));
        command.current_dir(self.dir.path()).args(words);
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    pub(crate) fn done(&self, words: &[&str]) -> Output {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", stderr(&output));
        output
    }

    /// That this fails with a code and says all of `says`.
    pub(crate) fn refused(&self, words: &[&str], code: i32, says: &[&str]) {
        let output = self.run(words);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        for text in says {
            assert!(said.contains(text), "{text}: {said}");
        }
    }

    pub(crate) fn prune<'a>(&self, out: &'a str, options: &[&'a str]) -> Vec<&'a str> {
        let base = ["prune", "model", "--device", "cpu", "-o", out];
        [&base, options].concat()
    }

    pub(crate) fn part(&self, out: &str, part: &str, options: &[&str]) {
        let words = self.prune(out, options);
        self.done(&[&words[..], &["--part", part]].concat());
    }

    /// Changes the last byte of a file.
    pub(crate) fn edit(&self, file: &str) {
        let path = self.at(file);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(path, bytes).unwrap();
    }

    /// Changes a record of a directory of parts.
    pub(crate) fn edit_record(&self, file: &str, edit: impl FnOnce(&mut Value)) {
        let path = self.at(file);
        let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(&mut record);
        fs::write(path, record.to_string()).unwrap();
    }
}

pub(crate) const NONE: [&str; 2] = ["--calibration", "none"];
