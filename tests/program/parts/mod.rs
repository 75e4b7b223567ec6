//! A run that is cut into parts, or stopped and resumed, writes what a single run writes; and parts that do not fit together are
//! refused by name.

use std::fs;

use serde_json::Value;

use crate::place::Place;

mod identity;
mod merged;
mod resumed;

const FIRST: &str = "model-00001-of-00003.safetensors";
const SECOND: &str = "model-00002-of-00003.safetensors";

impl Place {
    fn prune<'a>(&self, out: &'a str, options: &[&'a str]) -> Vec<&'a str> {
        let base = ["prune", "model", "--device", "cpu", "-o", out];
        [&base, options].concat()
    }

    fn part(&self, out: &str, part: &str, options: &[&str]) {
        let words = self.prune(out, options);
        self.done(&[&words[..], &["--part", part]].concat());
    }

    /// Changes the last byte of a file.
    fn edit(&self, file: &str) {
        let path = self.path(file);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(path, bytes).unwrap();
    }

    /// Changes a record of a directory of parts.
    fn edit_record(&self, file: &str, edit: impl FnOnce(&mut Value)) {
        let path = self.path(file);
        let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(&mut record);
        fs::write(path, record.to_string()).unwrap();
    }
}

const NONE: [&str; 2] = ["--calibration", "none"];
