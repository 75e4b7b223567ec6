//! Inputs that change or cannot be read while a run is under way.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::place::{PROGRAM, names, prune, sharded_example, stderr, under_way};

/// What a run says that was under way when `change` was done to its model; it leaves nothing.
fn changed_under_way(change: impl FnOnce(&Path)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let run = under_way(dir.path());
    change(&dir.path().join("model/model.safetensors"));
    let done = run.wait_with_output().unwrap();
    let said = stderr(&done);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("model.safetensors changed while"), "{said}");
    assert_eq!(names(dir.path()), ["model", "text.txt"]);
    said
}

#[test]
fn an_input_that_is_cut_while_it_is_read_is_an_error_and_no_crash() {
    changed_under_way(|file| {
        let file = OpenOptions::new().write(true).open(file).unwrap();
        file.set_len(1 << 20).unwrap();
    });
}

#[test]
fn an_input_that_is_replaced_while_it_is_read_is_not_pruned_by_the_norms_of_the_old_one() {
    changed_under_way(|file| {
        // The same header, other weights.
        let mut bytes = fs::read(file).unwrap();
        let end = bytes.len();
        bytes[end - 4096..].fill(0x3c);
        let other = file.with_file_name("other");
        fs::write(&other, bytes).unwrap();
        fs::rename(other, file).unwrap();
    });
}

#[test]
fn an_input_that_is_written_to_while_it_is_read_is_an_error() {
    changed_under_way(|file| {
        use std::os::unix::fs::FileExt as _;
        let file = OpenOptions::new().write(true).open(file).unwrap();
        let end = file.metadata().unwrap().len();
        file.write_all_at(&[0x3c; 4096], end - 4096).unwrap();
    });
}

#[test]
fn a_shard_in_the_middle_that_cannot_be_read_is_named_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    let model = sharded_example(dir.path());
    let shard = model.join("model-00002-of-00003.safetensors");
    fs::set_permissions(&shard, Permissions::from_mode(0o000)).unwrap();
    let out = dir.path().join("out");
    let done = if fs::read(&shard).is_err() {
        prune(&model, &out, &["--calibration", "none"])
    } else {
        // Root reads everything: as another user, who can read this directory.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        let tried = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(PROGRAM)
            .arg("prune")
            .arg(&model)
            .arg("-o")
            .arg(&out)
            .args(["--calibration", "none", "--device", "cpu"])
            .output();
        match tried {
            Ok(done) if done.status.code() != Some(127) => done,
            _ => {
                eprintln!("not tried: this is root, and there is no setpriv to be another user");
                return;
            }
        }
    };
    let said = stderr(&done);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("model-00002-of-00003.safetensors"), "{said}");
    assert!(said.contains("Permission denied"), "{said}");
    assert!(!out.exists());
}
