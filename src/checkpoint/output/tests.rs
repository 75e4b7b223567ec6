use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::super::copying::BUFFER;
use super::super::error::Error;
use super::super::locate::Source;
use super::super::positional::read_exact_at;
use super::super::shards::Shard;
use super::super::tests::{open, safetensors, sharded, single};
use super::*;

const NEW: OutputOptions = OutputOptions::new();
const FORCE: OutputOptions = NEW.overwrite(true);

/// Copies all tensors of a checkpoint, but flips the bits of the one called `x`.
fn write_all(checkpoint: &Checkpoint, output: &Output) {
    for (shard, tensor) in checkpoint.tensors() {
        let input = File::open(&checkpoint.shards[shard].path).unwrap();
        if tensor.name == "x" {
            let mut bytes = vec![0; tensor.len as usize];
            read_exact_at(&input, &mut bytes, tensor.offset).unwrap();
            bytes.iter_mut().for_each(|b| *b = !*b);
            output.write_at(shard, &bytes, tensor.offset).unwrap();
        } else {
            output
                .copy_range(shard, &input, tensor.offset, tensor.len)
                .unwrap();
        }
    }
}

/// What `write_all` makes of a file.
fn flipped(shard: &Shard) -> Vec<u8> {
    let mut bytes = fs::read(&shard.path).unwrap();
    if let Some(x) = shard.header().tensor("x") {
        bytes[x.offset as usize..][..x.len as usize]
            .iter_mut()
            .for_each(|b| *b = !*b);
    }
    bytes
}

fn prune(model: &Path, output: &Path, force: bool) -> Result<Finished> {
    let checkpoint = open(model).unwrap();
    let output = Output::create(&checkpoint, output, &NEW.overwrite(force))?;
    write_all(&checkpoint, &output);
    output.finish()
}

/// All names in a directory, hidden ones too.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn an_output_can_be_written_from_many_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Output>();
}

#[test]
fn a_file_appears_whole_with_its_header_verbatim() {
    for sync in [false, true] {
        let (root, path) = single();
        let checkpoint = open(&path).unwrap();
        let before = fs::read(&path).unwrap();
        let output =
            Output::create(&checkpoint, &checkpoint.default_output(), &NEW.sync(sync)).unwrap();
        write_all(&checkpoint, &output);
        assert!(!root.path().join("model-pruned.safetensors").exists());
        let finished = output.finish().unwrap();
        assert_eq!(finished.path, root.path().join("model-pruned.safetensors"));
        assert_eq!(
            fs::read(&finished.path).unwrap(),
            flipped(&checkpoint.shards[0])
        );
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(
            names(root.path()),
            ["model-pruned.safetensors", "model.safetensors"]
        );
    }
}

#[test]
fn a_directory_appears_whole_and_opens_again() {
    for sync in [false, true] {
        let (root, dir) = sharded();
        fs::write(dir.join("tokenizer.json"), "{}").unwrap();
        fs::write(dir.join("pytorch_model.bin"), "dense").unwrap();
        let checkpoint = open(&dir).unwrap();
        let output =
            Output::create(&checkpoint, &checkpoint.default_output(), &NEW.sync(sync)).unwrap();
        write_all(&checkpoint, &output);
        assert!(!root.path().join("model-pruned").exists());
        let finished = output.finish().unwrap();
        assert_eq!(
            finished.copied,
            [
                "config.json",
                "model.safetensors.index.json",
                "tokenizer.json"
            ]
        );
        assert_eq!(finished.left_out.len(), 1);
        assert_eq!(names(root.path()), ["model", "model-pruned"]);
        let again = open(&finished.path).unwrap();
        for (new, old) in again.shards.iter().zip(&checkpoint.shards) {
            assert_eq!(fs::read(&new.path).unwrap(), flipped(old));
            assert_eq!(new.header(), old.header());
        }
        assert_eq!(again.model_type(), Some("llama"));
    }
}

#[test]
fn an_index_gives_the_directory_it_lies_in() {
    let (root, dir) = sharded();
    let out = root.path().join("out");
    let finished = prune(&dir.join("model.safetensors.index.json"), &out, false).unwrap();
    assert_eq!(
        finished.copied,
        ["config.json", "model.safetensors.index.json"]
    );
    assert_eq!(open(&out).unwrap().tensors().count(), 3);
}

#[test]
fn large_ranges_are_copied_bit_by_bit_from_many_threads() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("model.safetensors");
    let lens = [2 * BUFFER + 17, 3, 5 * BUFFER - 1, BUFFER, 0];
    let named: Vec<_> = ["a", "b", "c", "d", "e"].into_iter().zip(lens).collect();
    fs::write(&path, safetensors(&named)).unwrap();
    let checkpoint = open(&path).unwrap();
    let out = root.path().join("out.safetensors");
    let output = Output::create(&checkpoint, &out, &NEW).unwrap();
    let input = File::open(&path).unwrap();
    std::thread::scope(|scope| {
        for (shard, tensor) in checkpoint.tensors() {
            let (output, input) = (&output, &input);
            scope.spawn(move || {
                output
                    .copy_range(shard, input, tensor.offset, tensor.len)
                    .unwrap()
            });
        }
    });
    output.finish().unwrap();
    assert!(fs::read(&out).unwrap() == fs::read(&path).unwrap());
}

#[test]
fn the_buffer_copies_what_the_kernel_copies() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("model.safetensors");
    fs::write(&path, safetensors(&[("a", 2 * BUFFER + 17)])).unwrap();
    let checkpoint = open(&path).unwrap();
    let output = Output::create(&checkpoint, &root.path().join("o.safetensors"), &NEW).unwrap();
    let tensor = &checkpoint.shards[0].header().tensors()[0];
    let input = File::open(&path).unwrap();
    output
        .stage
        .fill(0, tensor.offset, tensor.len, |staged| {
            let input = CopySource {
                file: &input,
                path: &path,
            };
            copying::by_buffer(&output.stage, staged, input, tensor.offset, tensor.len)
        })
        .unwrap();
    assert!(fs::read(output.stage.temporary()).unwrap() == fs::read(&path).unwrap());
}

#[cfg(target_os = "linux")]
#[test]
fn a_replaced_input_is_still_copied_from_the_handle_that_was_opened() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("model.safetensors");
    let bytes = safetensors(&[("a", BUFFER + 1)]);
    fs::write(&path, &bytes).unwrap();
    let checkpoint = open(&path).unwrap();
    let input = File::open(&path).unwrap();
    fs::rename(&path, root.path().join("old")).unwrap();
    fs::write(&path, vec![7; bytes.len()]).unwrap();
    let output = Output::create(&checkpoint, &root.path().join("o.safetensors"), &NEW).unwrap();
    let tensor = &checkpoint.shards[0].header().tensors()[0];
    let from = CopySource {
        file: &input,
        path: &path,
    };
    let copied = output.stage.fill(0, tensor.offset, 0, |staged| {
        let (stage, offset) = (&output.stage, tensor.offset);
        assert!(!copying::in_kernel(
            stage, staged, from, offset, tensor.len
        )?);
        Ok(())
    });
    copied.unwrap();
    output
        .copy_range(0, &input, tensor.offset, tensor.len)
        .unwrap();
    assert!(fs::read(output.stage.temporary()).unwrap() == bytes);
}

#[test]
fn an_input_that_was_cut_short_is_an_error() {
    for len in [100, BUFFER + 100] {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("model.safetensors");
        fs::write(&path, safetensors(&[("a", len)])).unwrap();
        let checkpoint = open(&path).unwrap();
        let output = Output::create(&checkpoint, &root.path().join("o.safetensors"), &NEW).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(checkpoint.shards[0].len - 1)
            .unwrap();
        let input = File::open(&path).unwrap();
        let tensor = &checkpoint.shards[0].header().tensors()[0];
        let error = output
            .copy_range(0, &input, tensor.offset, tensor.len)
            .unwrap_err();
        assert!(matches!(error, Error::Changed { .. }), "{error:?}");
        assert!(output.finish().is_err());
        assert_eq!(names(root.path()), ["model.safetensors"]);
    }
}

#[test]
fn dropping_without_finish_leaves_nothing() {
    let (root, path) = single();
    let output = Output::create(
        &open(&path).unwrap(),
        &root.path().join("o.safetensors"),
        &NEW,
    )
    .unwrap();
    assert_eq!(names(root.path()).len(), 2);
    assert!(names(root.path())[0].starts_with(".o.safetensors."));
    drop(output);
    assert_eq!(names(root.path()), ["model.safetensors"]);

    let (root, dir) = sharded();
    let output = Output::create(&open(&dir).unwrap(), &root.path().join("o"), &NEW).unwrap();
    assert_eq!(names(root.path()).len(), 2);
    drop(output);
    assert_eq!(names(root.path()), ["model"]);
}

#[test]
fn an_output_with_missing_bytes_is_not_put_in_place() {
    let (root, path) = single();
    let checkpoint = open(&path).unwrap();
    let output = Output::create(&checkpoint, &root.path().join("o.safetensors"), &NEW).unwrap();
    let tensor = &checkpoint.shards[0].header().tensors()[0];
    output.write_at(0, &[0; 300], tensor.offset).unwrap();
    let error = output.finish().unwrap_err();
    assert!(
        matches!(
            error,
            Error::Incomplete {
                written: 300,
                needed: 305,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(names(root.path()), ["model.safetensors"]);
}

#[test]
fn the_room_that_is_needed_is_that_of_the_weights_and_of_all_beside_them() {
    let (root, dir) = sharded();
    fs::create_dir(dir.join("1_Pooling")).unwrap();
    fs::write(dir.join("1_Pooling/config.json"), [b' '; 1000]).unwrap();
    fs::write(dir.join("other.bin"), [0; 77]).unwrap();
    let checkpoint = open(&dir).unwrap();
    let output = Output::create(&checkpoint, &root.path().join("o"), &NEW).unwrap();
    let len = |name: &str| fs::metadata(dir.join(name)).unwrap().len();
    let all: u64 = [
        "a-1.safetensors",
        "a-2.safetensors",
        "model.safetensors.index.json",
        "config.json",
        "1_Pooling/config.json",
    ]
    .map(len)
    .iter()
    .sum();
    let error = (output.stage).failed(std::io::ErrorKind::StorageFull.into(), &dir);
    assert!(
        matches!(error, Error::NoSpace { needed, .. } if needed == all),
        "{all}: {error}"
    );
}

#[test]
fn writes_outside_the_data_are_refused() {
    let (root, path) = single();
    let checkpoint = open(&path).unwrap();
    let output = Output::create(&checkpoint, &root.path().join("o.safetensors"), &NEW).unwrap();
    let (start, end) = (
        checkpoint.shards[0].header().data_start(),
        checkpoint.shards[0].len,
    );
    let input = File::open(&path).unwrap();
    assert!(output.write_at(0, &[1], start).is_ok() && output.write_at(0, &[1], end - 1).is_ok());
    for (shard, offset) in [(0, 0), (0, start - 1), (0, end), (0, u64::MAX), (1, start)] {
        for error in [
            output.write_at(shard, &[1], offset),
            output.copy_range(shard, &input, offset, 1),
        ] {
            assert!(matches!(error, Err(Error::OutOfRange { .. })), "{error:?}");
        }
    }
    assert!(matches!(
        output.copy_range(0, &input, start, u64::MAX),
        Err(Error::OutOfRange { .. })
    ));
}

#[test]
fn an_existing_file_is_replaced_only_where_the_options_say_so() {
    let (root, path) = single();
    let out = root.path().join("out.safetensors");
    fs::write(&out, "old").unwrap();
    let error = prune(&path, &out, false).unwrap_err();
    assert!(matches!(error, Error::OutputExists { .. }), "{error:?}");
    assert!(error.to_string().contains("be replaced"), "{error}");
    assert_eq!(fs::read(&out).unwrap(), b"old");
    prune(&path, &out, true).unwrap();
    assert!(open(&out).is_ok());
    assert_eq!(names(root.path()), ["model.safetensors", "out.safetensors"]);
}

#[test]
fn a_file_that_appears_meanwhile_is_not_replaced() {
    let (root, path) = single();
    let out = root.path().join("out.safetensors");
    let checkpoint = open(&path).unwrap();
    let output = Output::create(&checkpoint, &out, &NEW).unwrap();
    write_all(&checkpoint, &output);
    fs::write(&out, "new").unwrap();
    assert!(matches!(output.finish(), Err(Error::OutputExists { .. })));
    assert_eq!(fs::read(&out).unwrap(), b"new");
    assert_eq!(names(root.path()), ["model.safetensors", "out.safetensors"]);
}

#[test]
fn an_existing_directory_is_replaced_only_where_the_options_say_so() {
    let (root, dir) = sharded();
    let out = root.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("config.json"), "old").unwrap();
    fs::write(out.join("stale.safetensors"), "old").unwrap();
    let error = prune(&dir, &out, false).unwrap_err();
    assert!(error.to_string().contains("be replaced"), "{error}");
    assert_eq!(names(&out), ["config.json", "stale.safetensors"]);
    prune(&dir, &out, true).unwrap();
    assert_eq!(
        names(&out),
        [
            "a-1.safetensors",
            "a-2.safetensors",
            "config.json",
            "model.safetensors.index.json"
        ]
    );
    assert_eq!(names(root.path()), ["model", "out"]);
}

#[test]
fn a_directory_without_a_checkpoint_is_never_replaced() {
    let (root, dir) = sharded();
    let out = root.path().join("out");
    fs::create_dir(&out).unwrap();
    prune(&dir, &out, true).unwrap(); // An empty one may go.
    fs::remove_dir_all(&out).unwrap();
    fs::create_dir(&out).unwrap();
    fs::write(out.join("thesis.tex"), "mine").unwrap();
    for force in [false, true] {
        let error = prune(&dir, &out, force).unwrap_err();
        assert!(
            matches!(&error, Error::HoldsForeignFile { file, .. } if file == "thesis.tex"),
            "{error:?}"
        );
    }
    assert_eq!(names(&out), ["thesis.tex"]);
    assert_eq!(names(root.path()), ["model", "out"]);
}

#[test]
fn a_directory_that_holds_more_than_a_checkpoint_is_refused_by_the_first_foreign_name() {
    let (root, dir) = sharded();
    let out = root.path().join("out");
    for (foreign, named) in [
        ("notes.txt", "notes.txt"),
        ("src/main.py", "src"),
        ("train.py", "train.py"),
        ("1_Pooling/notes.txt", "1_Pooling/notes.txt"),
        ("1_Pooling/.git/config", "1_Pooling/.git"),
        (".git/config", ".git"),
        ("zzz/zzz", "zzz"),
    ] {
        prune(&dir, &out, true).unwrap();
        let path = out.join(foreign);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "mine").unwrap();
        let error = prune(&dir, &out, true).unwrap_err();
        assert!(
            matches!(&error, Error::HoldsForeignFile { file, .. } if *file == named),
            "{error:?}"
        );
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        fs::remove_dir_all(&out).unwrap();
    }
    // A config.json and a README do not make a model.
    fs::create_dir(&out).unwrap();
    fs::write(out.join("config.json"), "mine").unwrap();
    fs::write(out.join("README.md"), "mine").unwrap();
    let error = prune(&dir, &out, true).unwrap_err();
    assert!(matches!(error, Error::NotReplaceable { .. }), "{error:?}");
}

#[test]
fn an_earlier_output_is_replaced_with_all_that_was_copied_into_it() {
    let (root, dir) = sharded();
    let out = root.path().join("out");
    for name in [
        "utils.py",
        "LICENSE",
        "1_Pooling/config.json",
        "optimizer.bin",
    ] {
        fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
        fs::write(dir.join(name), name).unwrap();
    }
    prune(&dir, &out, false).unwrap();
    fs::write(out.join(".DS_Store"), "litter").unwrap();
    let finished = prune(&dir, &out, true).unwrap();
    assert_eq!(finished.left_out.len(), 1);
    assert!(out.join("utils.py").exists() && !out.join(".DS_Store").exists());
    assert_eq!(names(root.path()), ["model", "out"]);
    // Code that has been changed since is somebody's work.
    fs::write(out.join("utils.py"), "mine").unwrap();
    let error = prune(&dir, &out, true).unwrap_err();
    assert!(matches!(error, Error::HoldsForeignFile { .. }), "{error:?}");
}

#[test]
fn a_directory_that_fills_meanwhile_is_not_replaced() {
    let (root, dir) = sharded();
    let out = root.path().join("out");
    let checkpoint = open(&dir).unwrap();
    let output = Output::create(&checkpoint, &out, &FORCE).unwrap();
    write_all(&checkpoint, &output);
    fs::create_dir(&out).unwrap();
    fs::write(out.join("thesis.tex"), "mine").unwrap();
    let refused = output.finish();
    assert!(matches!(refused, Err(Error::HoldsForeignFile { .. })));
    assert_eq!(names(&out), ["thesis.tex"]);
    assert_eq!(names(root.path()), ["model", "out"]);
}

#[test]
fn file_and_directory_never_replace_each_other() {
    let (root, dir) = sharded();
    let file = root.path().join("file");
    fs::write(&file, "old").unwrap();
    assert!(matches!(
        prune(&dir, &file, true),
        Err(Error::NotReplaceable { .. })
    ));
    let (single_root, path) = single();
    let out = single_root.path().join("out");
    fs::create_dir(&out).unwrap();
    assert!(matches!(
        prune(&path, &out, true),
        Err(Error::NotReplaceable { .. })
    ));
    assert_eq!(fs::read(&file).unwrap(), b"old");
    assert!(out.is_dir());
}

#[test]
fn the_input_is_never_replaced() {
    let (root, path) = single();
    let roundabout = root
        .path()
        .join("..")
        .join(root.path().file_name().unwrap())
        .join("model.safetensors");
    for out in [&path, &roundabout] {
        let error = prune(&path, out, true).unwrap_err();
        assert!(
            matches!(error, Error::OutputIsInput { relation: "is", .. }),
            "{error:?}"
        );
    }
    let (_root, dir) = sharded();
    for out in ["a-1.safetensors", "model.safetensors.index.json"] {
        let error = prune(&dir, &dir.join(out), true).unwrap_err();
        assert!(
            matches!(error, Error::OutputIsInput { relation: "is", .. }),
            "{error:?}"
        );
    }
}

#[cfg(unix)]
#[test]
fn links_do_not_hide_the_input() {
    let (root, path) = single();
    let hard = root.path().join("hard.safetensors");
    let soft = root.path().join("soft.safetensors");
    fs::hard_link(&path, &hard).unwrap();
    std::os::unix::fs::symlink("model.safetensors", &soft).unwrap();
    for (model, out) in [
        (&path, &hard),
        (&path, &soft),
        (&soft, &path),
        (&hard, &path),
    ] {
        let error = prune(model, out, true).unwrap_err();
        assert!(
            matches!(error, Error::OutputIsInput { relation: "is", .. }),
            "{error:?}"
        );
    }
    let (root, dir) = sharded();
    let soft = root.path().join("soft");
    std::os::unix::fs::symlink(&dir, &soft).unwrap();
    for (model, out, relation) in [
        (&dir, soft.clone(), "is"),
        (&soft, dir.clone(), "is"),
        (&dir, soft.join("out"), "is inside"),
        (&soft, dir.join("out"), "is inside"),
    ] {
        let error = prune(model, &out, true).unwrap_err();
        assert!(
            matches!(error, Error::OutputIsInput { relation: r, .. } if r == relation),
            "{error:?}"
        );
    }
    assert!(open(&dir).is_ok());
}

#[test]
fn an_output_in_around_or_at_the_input_directory_is_refused() {
    let (root, dir) = sharded();
    fs::create_dir_all(dir.join("sub")).unwrap();
    fs::write(root.path().join("config.json"), "{}").unwrap();
    for (out, relation) in [
        (dir.clone(), "is"),
        (dir.join("out"), "is inside"),
        (dir.join("sub").join("out"), "is inside"),
        (root.path().to_path_buf(), "holds"),
    ] {
        let error = prune(&dir, &out, true).unwrap_err();
        assert!(
            matches!(error, Error::OutputIsInput { relation: r, .. } if r == relation),
            "{error:?}"
        );
    }
    assert!(prune(&dir, &root.path().join("model-2"), false).is_ok());
}

/// A repository as the Hugging Face cache keeps it.
#[cfg(unix)]
fn cached() -> (TempDir, Checkpoint) {
    let root = tempfile::tempdir().unwrap();
    let repository = root.path().join("models--org--name");
    let dir = repository.join("snapshots/abc");
    fs::create_dir_all(&dir).unwrap();
    fs::create_dir_all(repository.join("blobs")).unwrap();
    fs::write(repository.join("blobs/1"), safetensors(&[("x", 9)])).unwrap();
    fs::write(repository.join("blobs/2"), "{}").unwrap();
    std::os::unix::fs::symlink("../../blobs/1", dir.join("model.safetensors")).unwrap();
    std::os::unix::fs::symlink("../../blobs/2", dir.join("config.json")).unwrap();
    let weights = Weights::Single(dir.join("model.safetensors"));
    let source = Source::Cache {
        id: "org/name".into(),
        repository,
        dir,
        weights,
    };
    (root, Checkpoint::open_source(source).unwrap())
}

#[cfg(unix)]
#[test]
fn the_cache_is_read_through_its_links_and_never_written_to() {
    let (root, checkpoint) = cached();
    let repository = root.path().join("models--org--name");
    for out in [
        "blobs/out",
        "snapshots/out",
        "out",
        "snapshots/abc/model.safetensors",
    ] {
        let error = Output::create(&checkpoint, &repository.join(out), &FORCE).unwrap_err();
        assert!(matches!(error, Error::OutputIsInput { .. }), "{error:?}");
    }
    // A file of the snapshot, named itself: not among the blobs either.
    let file = repository.join("snapshots/abc/model.safetensors");
    for out in ["blobs/out.safetensors", "blobs/1"] {
        let error = prune(&file, &repository.join(out), true).unwrap_err();
        assert!(matches!(error, Error::OutputIsInput { .. }), "{error:?}");
    }

    let out = root.path().join("out");
    let output = Output::create(&checkpoint, &out, &NEW).unwrap();
    write_all(&checkpoint, &output);
    output.finish().unwrap();
    assert_eq!(names(&out), ["config.json", "model.safetensors"]);
    assert!(!out.join("config.json").is_symlink() && !out.join("model.safetensors").is_symlink());
    assert_eq!(
        fs::read(repository.join("blobs/1")).unwrap(),
        safetensors(&[("x", 9)])
    );
}

#[cfg(unix)]
#[test]
fn a_link_at_the_output_is_replaced_and_not_written_through() {
    use std::os::unix::fs::symlink;
    let (root, path) = single();
    let (elsewhere, out) = (
        root.path().join("elsewhere"),
        root.path().join("out.safetensors"),
    );
    fs::write(&elsewhere, "mine").unwrap();
    symlink(&elsewhere, &out).unwrap();
    assert!(matches!(
        prune(&path, &out, false),
        Err(Error::OutputExists { .. })
    ));
    prune(&path, &out, true).unwrap();
    assert!(!out.is_symlink());
    assert_eq!(fs::read(&elsewhere).unwrap(), b"mine");

    let (root, dir) = sharded();
    let (elsewhere, out) = (root.path().join("elsewhere"), root.path().join("out"));
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("thesis.tex"), "mine").unwrap();
    symlink(&elsewhere, &out).unwrap();
    assert!(matches!(
        prune(&dir, &out, false),
        Err(Error::OutputExists { .. })
    ));
    prune(&dir, &out, true).unwrap();
    assert!(!out.is_symlink() && out.join("config.json").exists());
    assert_eq!(names(&elsewhere), ["thesis.tex"]);
    assert_eq!(names(root.path()), ["elsewhere", "model", "out"]);
}

#[cfg(unix)]
#[test]
fn a_pipe_or_device_is_never_replaced() {
    let (root, path) = single();
    let out = root.path().join("socket");
    let _socket = std::os::unix::net::UnixListener::bind(&out).unwrap();
    let error = prune(&path, &out, true).unwrap_err();
    assert!(matches!(error, Error::NotReplaceable { .. }), "{error:?}");
}

#[test]
fn a_missing_parent_or_name_is_a_clear_error() {
    let (root, path) = single();
    let error = prune(&path, &root.path().join("no/out.safetensors"), false).unwrap_err();
    assert!(
        matches!(error, Error::NoOutputDirectory { .. }),
        "{error:?}"
    );
    let error = prune(&path, &path.join("out.safetensors"), false).unwrap_err();
    assert!(
        matches!(error, Error::NoOutputDirectory { .. }),
        "{error:?}"
    );
    for out in [
        PathBuf::new(),
        PathBuf::from("/"),
        root.path().join(".."),
        root.path().join("out/"),
    ] {
        let error = prune(&path, &out, true).unwrap_err();
        assert!(matches!(error, Error::NoOutputName { .. }), "{error:?}");
    }
}

#[cfg(unix)]
#[test]
fn mode_bits_are_those_that_cp_gives() {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for bits in [0o644, 0o664, 0o444, 0o600] {
        let (root, path) = single();
        // What the umask leaves of these bits.
        let like = root.path().join("like");
        File::options()
            .write(true)
            .create_new(true)
            .mode(bits)
            .open(&like)
            .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(bits)).unwrap();
        let out = root.path().join("out.safetensors");
        prune(&path, &out, false).unwrap();
        assert_eq!(mode(&out), mode(&like), "{bits:o}");

        let (root, dir) = sharded();
        for name in names(&dir) {
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(bits)).unwrap();
        }
        let out = root.path().join("out");
        prune(&dir, &out, false).unwrap();
        for name in names(&out) {
            assert_eq!(mode(&out.join(&name)), mode(&like), "{name} {bits:o}");
        }
        assert_eq!(mode(&out), mode(&dir));
    }
}

#[test]
fn a_very_long_output_name_can_be_staged() {
    let (root, path) = single();
    let out = root.path().join(format!("{}.safetensors", "ж".repeat(115)));
    prune(&path, &out, false).unwrap();
    assert!(open(&out).is_ok());
}
