//! What a finished shard, kept norms and a merge go by: bytes, never times or paths.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{FIRST, NONE, SECOND};
use crate::place::{Place, example, for_each_tensor, names, stderr, tree};

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
    let modified = place.path(file).metadata().unwrap().modified().unwrap();
    place.edit(file);
    let open = File::options().write(true).open(place.path(file)).unwrap();
    open.set_modified(modified).unwrap();
}

#[test]
fn parts_of_two_models_with_the_same_headers_and_times_are_not_merged() {
    let place = Place::sharded();
    fs::create_dir(place.path("other")).unwrap();
    for name in names(&place.path("model")) {
        fs::copy(
            place.path("model").join(&name),
            place.path("other").join(&name),
        )
        .unwrap();
    }
    place.edit(&format!("other/{FIRST}"));
    place.edit(&format!("other/{SECOND}"));
    same_times(&place.path("model"));
    same_times(&place.path("other"));
    place.part("out", "1/2", &NONE);
    let of_other = ["prune", "other", "--device", "cpu", "-o", "out"];
    place.done(&[&of_other[..], &NONE, &["--part", "2/2"]].concat());
    for model in ["model", "other"] {
        let words = ["merge", "out", "--model", model];
        place.refused_as(&words, 1, &["the input's SHA-256 is not"]);
    }
    // The same through a run that goes on: what is of the other model is pruned again.
    place.done(&place.prune("single", &NONE));
    let resumed = place.done(&[&place.prune("out", &NONE)[..], &["--resume"]].concat());
    let said = stderr(&resumed);
    assert!(
        said.contains("is pruned again: the input's SHA-256"),
        "{said}"
    );
    assert_eq!(tree(&place.path("single")), tree(&place.path("out")));
}

#[test]
fn a_shard_whose_bytes_were_changed_in_secret_is_noticed() {
    let place = Place::sharded();
    for file in [format!("model/{FIRST}"), format!("out.parts/{FIRST}")] {
        place.part("out", "1/1", &NONE);
        edit_in_secret(&place, &file);
        place.refused_as(&["merge", "out"], 1, &[FIRST, "SHA-256 is not"]);
        edit_in_secret(&place, &file);
        place.done(&["merge", "out"]);
        fs::remove_dir_all(place.path("out")).unwrap();
    }
}

#[test]
fn norms_that_only_the_allocation_goes_by_are_recorded() {
    let place = Place::sharded();
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
        place.refused_as(&part, 1, &["norms_sha256 is"]);
        let resume = [&with_others[..], &["--resume"]].concat();
        place.refused_as(&resume, 1, &["norms_sha256 is"]);
        place.part("out", "2/2", &options("64"));
        place.done(&["merge", "out"]);
        place.done(&place.prune("single", &options("64")));
        assert_eq!(
            tree(&place.path("single")),
            tree(&place.path("out")),
            "{rule}"
        );
        for out in ["single", "out"] {
            fs::remove_dir_all(place.path(out)).unwrap();
        }
    }
}

#[test]
fn a_shard_pruned_by_shares_that_other_weights_gave_is_pruned_again() {
    let place = Place::sharded();
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
    let finished = names(&place.path("out.parts"));
    let third = names(&place.path("model"))
        .into_iter()
        .find(|name| name.ends_with(".safetensors") && !finished.contains(name));
    let third = place.path("model").join(third.unwrap());
    let mut bytes = fs::read(&third).unwrap();
    for_each_tensor(&mut bytes, |name, data| {
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
    place.refused_as(&["merge", "out"], 1, &["shares of the sparsity are not"]);
    let resumed = place.done(&[&place.prune("out", &options)[..], &["--resume"]].concat());
    assert!(
        stderr(&resumed).contains("is pruned again: its shares"),
        "{}",
        stderr(&resumed)
    );
    place.done(&place.prune("single", &options));
    assert_eq!(tree(&place.path("single")), tree(&place.path("out")));
}

/// A run that keeps the norms which it has measured, and fails then: something is where a shard is to be.
fn with_kept_norms(place: &Place) -> Vec<&'static str> {
    let in_the_way = place.path("out.parts").join(FIRST);
    fs::create_dir_all(place.path("out.parts/manifest")).unwrap();
    fs::create_dir(&in_the_way).unwrap();
    let words = place.prune("out", &["--tokens", "64", "--resume"]);
    place.refused_as(&words, 1, &[FIRST]);
    assert!(place.path("out.parts/manifest/norms.safetensors").exists());
    fs::remove_dir(in_the_way).unwrap();
    words
}

#[test]
fn norms_that_were_measured_on_other_weights_are_not_gone_on_with() {
    for changed in [FIRST, SECOND, "config.json", "tokenizer.json"] {
        let place = Place::sharded();
        same_times(&place.path("model"));
        let words = with_kept_norms(&place);
        if changed.ends_with(".json") {
            let text = fs::read_to_string(place.path("model").join(changed)).unwrap();
            fs::write(place.path("model").join(changed), text + " ").unwrap();
        } else {
            edit_in_secret(&place, &format!("model/{changed}"));
        }
        place.refused_as(&words, 1, &["calibrated.json", "were measured", changed]);
        assert!(!place.path("out").exists());
    }
    // The same ones are, also under other times.
    let place = Place::sharded();
    let words = with_kept_norms(&place);
    same_times(&place.path("model"));
    let norms = place.path("out.parts/manifest/norms.safetensors");
    let before = norms.metadata().unwrap().modified().unwrap();
    fs::create_dir(place.path("out.parts").join(SECOND)).unwrap();
    place.refused_as(&words, 1, &[SECOND]);
    assert_eq!(norms.metadata().unwrap().modified().unwrap(), before);
    fs::remove_dir(place.path("out.parts").join(SECOND)).unwrap();
    // Without the record of what they were measured on they are measured again.
    fs::remove_file(place.path("out.parts/manifest/calibrated.json")).unwrap();
    let done = place.done(&words);
    assert!(
        stderr(&done).contains("is measured again"),
        "{}",
        stderr(&done)
    );
    place.done(&place.prune("single", &["--tokens", "64"]));
    assert_eq!(tree(&place.path("single")), tree(&place.path("out")));
}

#[test]
fn a_model_directory_of_one_file_is_merged_as_that_directory() {
    let place = Place::sharded();
    fs::remove_dir_all(place.path("model")).unwrap();
    example(place.dir.path(), |_, _| {});
    fs::write(place.path("model/README.md"), "mine").unwrap();
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
        assert_eq!(tree(&place.path("single")), tree(&place.path("out")));
        assert!(place.path("out/README.md").exists() && place.path("out/report.json").exists());
    }
}

#[cfg(unix)]
#[test]
fn the_checksums_of_a_merge_are_those_of_the_output_as_it_is_read_back() {
    use std::os::unix::fs::MetadataExt as _;

    let place = Place::sharded();
    place.part("out", "1/1", &NONE);
    // A part whose bytes are not what they were, though the file system says so.
    let part = format!("out.parts/{FIRST}");
    place.edit(&part);
    let meta = place.path(&part).metadata().unwrap();
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
    place.refused_as(&words, 1, &[FIRST, "its SHA-256 is not"]);
    assert!(place.path("out.parts").join(FIRST).exists());
    place.edit(&part);
    place.done(&[&words[..], &["--force", "--report", "r.json"]].concat());
    let report: serde_json::Value =
        serde_json::from_slice(&fs::read(place.path("r.json")).unwrap()).unwrap();
    assert_eq!(report["sha256"].as_object().unwrap().len(), 3);
    assert!(!place.path("out.parts").exists());
}
