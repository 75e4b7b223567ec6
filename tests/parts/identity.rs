//! What a finished shard, kept norms and a merge go by: bytes, never times or paths.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::common::{example, names, stderr, tree};
use crate::place::{FIRST, NONE, Place, SECOND};

/// Gives every file of a directory the same mtime, as a Nix store and a reproducible archive do.
fn same_times(dir: &Path) {
    for name in names(dir) {
        let file = File::options().write(true).open(dir.join(name)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1))
            .unwrap();
    }
}

/// Changes the last byte of a file, and nothing that `ls` shows.
fn edit_in_secret(place: &Place, file: &str) {
    let modified = place.at(file).metadata().unwrap().modified().unwrap();
    place.edit(file);
    let open = File::options().write(true).open(place.at(file)).unwrap();
    open.set_modified(modified).unwrap();
}

#[test]
fn parts_of_two_models_with_the_same_headers_and_times_are_not_merged() {
    let place = Place::new();
    fs::create_dir(place.at("other")).unwrap();
    for name in names(&place.at("model")) {
        fs::copy(place.at("model").join(&name), place.at("other").join(&name)).unwrap();
    }
    place.edit(&format!("other/{FIRST}"));
    place.edit(&format!("other/{SECOND}"));
    same_times(&place.at("model"));
    same_times(&place.at("other"));
    place.part("out", "1/2", &NONE);
    let of_other = ["prune", "other", "--device", "cpu", "-o", "out"];
    place.done(&[&of_other[..], &NONE, &["--part", "2/2"]].concat());
    for model in ["model", "other"] {
        let words = ["merge", "out", "--model", model];
        place.refused(&words, 1, &["the input's SHA-256 is not"]);
    }
    // The same through a run that goes on: what is of the other model is pruned again.
    place.done(&place.prune("single", &NONE));
    let resumed = place.done(&[&place.prune("out", &NONE)[..], &["--resume"]].concat());
    let said = stderr(&resumed);
    assert!(
        said.contains("is pruned again: the input's SHA-256"),
        "{said}"
    );
    assert_eq!(tree(&place.at("single")), tree(&place.at("out")));
}

#[test]
fn a_shard_whose_bytes_were_changed_in_secret_is_noticed() {
    let place = Place::new();
    for file in [format!("model/{FIRST}"), format!("out.parts/{FIRST}")] {
        place.part("out", "1/1", &NONE);
        edit_in_secret(&place, &file);
        place.refused(&["merge", "out"], 1, &[FIRST, "SHA-256 is not"]);
        edit_in_secret(&place, &file);
        place.done(&["merge", "out"]);
        fs::remove_dir_all(place.at("out")).unwrap();
    }
}

#[test]
fn norms_that_only_the_allocation_goes_by_are_recorded() {
    let place = Place::new();
    for tokens in ["64", "256"] {
        let words = [
            "calibrate",
            "model",
            "--device",
            "cpu",
            "--tokens",
            tokens,
            "-o",
            tokens,
        ];
        place.done(&words);
    }
    for rule in ["owl", "dlp"] {
        let options = |norms| ["--score", "magnitude", "--allocate", rule, "--norms", norms];
        place.part("out", "1/2", &options("64"));
        let with_others = place.prune("out", &options("256"));
        let part = [&with_others[..], &["--part", "2/2"]].concat();
        place.refused(&part, 1, &["norms_sha256 is"]);
        let resume = [&with_others[..], &["--resume"]].concat();
        place.refused(&resume, 1, &["norms_sha256 is"]);
        place.part("out", "2/2", &options("64"));
        place.done(&["merge", "out"]);
        place.done(&place.prune("single", &options("64")));
        assert_eq!(tree(&place.at("single")), tree(&place.at("out")), "{rule}");
        for out in ["single", "out"] {
            fs::remove_dir_all(place.at(out)).unwrap();
        }
    }
}

#[test]
fn a_shard_pruned_by_shares_that_other_weights_gave_is_pruned_again() {
    let place = Place::new();
    let words = [
        "calibrate",
        "model",
        "--device",
        "cpu",
        "--tokens",
        "64",
        "-o",
        "norms",
    ];
    place.done(&words);
    let options = ["--norms", "norms", "--allocate", "dlp"];
    place.part("out", "1/3", &options);
    place.part("out", "2/3", &options);
    // A shard that neither part has pruned: its weights, four times as large, change the shares of all.
    let finished = names(&place.at("out.parts"));
    let third = names(&place.at("model"))
        .into_iter()
        .find(|name| name.ends_with(".safetensors") && !finished.contains(name));
    let third = place.at("model").join(third.unwrap());
    let mut bytes = fs::read(&third).unwrap();
    crate::common::for_each_tensor(&mut bytes, |name, data| {
        if name.ends_with("proj.weight") {
            for pair in data.chunks_exact_mut(2) {
                let value = f32::from_bits(u32::from(u16::from_le_bytes([pair[0], pair[1]])) << 16);
                let value = ((value * 4.0).to_bits() >> 16) as u16;
                pair.copy_from_slice(&value.to_le_bytes());
            }
        }
    });
    fs::write(&third, bytes).unwrap();
    place.part("out", "3/3", &options);
    place.refused(&["merge", "out"], 1, &["shares of the sparsity are not"]);
    let resumed = place.done(&[&place.prune("out", &options)[..], &["--resume"]].concat());
    assert!(
        stderr(&resumed).contains("is pruned again: its shares"),
        "{}",
        stderr(&resumed)
    );
    place.done(&place.prune("single", &options));
    assert_eq!(tree(&place.at("single")), tree(&place.at("out")));
}

/// A run that keeps the norms which it has measured, and fails then: something is where a shard is to be.
fn with_kept_norms(place: &Place) -> Vec<&'static str> {
    let in_the_way = place.at("out.parts").join(FIRST);
    fs::create_dir_all(place.at("out.parts/manifest")).unwrap();
    fs::create_dir(&in_the_way).unwrap();
    let words = place.prune("out", &["--tokens", "64", "--resume"]);
    place.refused(&words, 1, &[FIRST]);
    assert!(place.at("out.parts/manifest/norms.safetensors").exists());
    fs::remove_dir(in_the_way).unwrap();
    words
}

#[test]
fn norms_that_were_measured_on_other_weights_are_not_gone_on_with() {
    for changed in [FIRST, SECOND, "config.json", "tokenizer.json"] {
        let place = Place::new();
        same_times(&place.at("model"));
        let words = with_kept_norms(&place);
        if changed.ends_with(".json") {
            let text = fs::read_to_string(place.at("model").join(changed)).unwrap();
            fs::write(place.at("model").join(changed), text + " ").unwrap();
        } else {
            edit_in_secret(&place, &format!("model/{changed}"));
        }
        place.refused(&words, 1, &["calibrated.json", "were measured", changed]);
        assert!(!place.at("out").exists());
    }
    // The same ones are, also under other times.
    let place = Place::new();
    let words = with_kept_norms(&place);
    same_times(&place.at("model"));
    let norms = place.at("out.parts/manifest/norms.safetensors");
    let before = norms.metadata().unwrap().modified().unwrap();
    fs::create_dir(place.at("out.parts").join(SECOND)).unwrap();
    place.refused(&words, 1, &[SECOND]);
    assert_eq!(norms.metadata().unwrap().modified().unwrap(), before);
    fs::remove_dir(place.at("out.parts").join(SECOND)).unwrap();
    // Without the record of what they were measured on they are measured again.
    fs::remove_file(place.at("out.parts/manifest/calibrated.json")).unwrap();
    let done = place.done(&words);
    assert!(
        stderr(&done).contains("is measured again"),
        "{}",
        stderr(&done)
    );
    place.done(&place.prune("single", &["--tokens", "64"]));
    assert_eq!(tree(&place.at("single")), tree(&place.at("out")));
}

#[test]
fn a_model_directory_of_one_file_is_merged_as_that_directory() {
    let place = Place::new();
    fs::remove_dir_all(place.at("model")).unwrap();
    example(place.dir.path(), |_, _| {});
    fs::write(place.at("model/README.md"), "mine").unwrap();
    place.done(&place.prune("single", &NONE));
    // Also in the place of an older one, which is a directory.
    for more in [
        &[][..],
        &["--force"],
        &["--force", "--model", "model/model.safetensors"],
    ] {
        let part = [
            &place.prune("out", &NONE)[..],
            &["--part", "1/1", "--force"],
        ]
        .concat();
        place.done(&part);
        place.done(&[&["merge", "out"][..], more].concat());
        assert_eq!(tree(&place.at("single")), tree(&place.at("out")));
        assert!(place.at("out/README.md").exists() && place.at("out/report.json").exists());
    }
}

#[cfg(unix)]
#[test]
fn the_checksums_of_a_merge_are_those_of_the_output_as_it_is_read_back() {
    use std::os::unix::fs::MetadataExt as _;

    let place = Place::new();
    place.part("out", "1/1", &NONE);
    // A part whose bytes are not what they were, though the file system says so.
    let part = format!("out.parts/{FIRST}");
    place.edit(&part);
    let meta = place.at(&part).metadata().unwrap();
    let nanoseconds = |seconds: i64, rest: i64| seconds * 1_000_000_000 + rest;
    place.edit_record(&format!("out.parts/manifest/{FIRST}.json"), |record| {
        record["output_content"]["stamp"] = serde_json::json!({
            "len": meta.len(),
            "modified": nanoseconds(meta.mtime(), meta.mtime_nsec()),
            "changed": nanoseconds(meta.ctime(), meta.ctime_nsec()),
            "inode": [meta.dev(), meta.ino()],
        });
    });
    let words = ["merge", "out", "--checksum"];
    place.refused(&words, 1, &[FIRST, "its SHA-256 is not"]);
    assert!(place.at("out.parts").join(FIRST).exists());
    place.edit(&part);
    place.done(&[&words[..], &["--force", "--report", "r.json"]].concat());
    let report: serde_json::Value =
        serde_json::from_slice(&fs::read(place.at("r.json")).unwrap()).unwrap();
    assert_eq!(report["sha256"].as_object().unwrap().len(), 3);
    assert!(!place.at("out.parts").exists());
}
