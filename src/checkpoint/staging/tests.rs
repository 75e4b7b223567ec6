//! The transaction by itself, without a checkpoint.

use super::super::destination::Form;
use super::*;

/// A stage of a new directory `out` in `root`, with two files of the same length.
fn two_files(root: &Path) -> Staging {
    let spec = |name: &str| FileSpec {
        name: name.into(),
        header: b"header",
        len: 10,
        like: None,
    };
    let destination = Destination::new(&root.join("out"), Form::Directory, false).unwrap();
    Staging::directory(destination, &[spec("a"), spec("b")], 0, None, true).unwrap()
}

/// What is in a directory, hidden names too.
fn names(dir: &Path) -> Vec<OsString> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

#[test]
fn a_directory_that_is_made_of_no_checkpoint_appears_whole() {
    let root = tempfile::tempdir().unwrap();
    let stage = two_files(root.path());
    fs::write(stage.temporary().join("beside"), "x").unwrap();
    stage.write_at(1, b"22", 8).unwrap();
    stage.write_at(0, b"1111", 6).unwrap();
    stage.write_at(1, b"22", 6).unwrap();
    assert!(!root.path().join("out").exists());
    let out = stage.finish().unwrap();
    assert_eq!(names(root.path()), ["out"]);
    assert_eq!(names(&out), ["a", "b", "beside"]);
    assert_eq!(fs::read(out.join("a")).unwrap(), b"header1111");
    assert_eq!(fs::read(out.join("b")).unwrap(), b"header2222");
}

#[test]
fn one_file_that_lacks_bytes_keeps_the_whole_output_back() {
    let root = tempfile::tempdir().unwrap();
    let stage = two_files(root.path());
    stage.write_at(0, b"1111", 6).unwrap();
    stage.write_at(1, b"222", 6).unwrap();
    let error = stage.finish().unwrap_err();
    assert!(
        matches!(&error, Error::Incomplete { shard, written: 3, needed: 4 } if shard == "b"),
        "{error:?}"
    );
    assert!(names(root.path()).is_empty());
}

#[test]
fn a_header_is_not_written_to_and_a_failed_write_is_not_counted() {
    let root = tempfile::tempdir().unwrap();
    let stage = two_files(root.path());
    for (file, offset) in [(0, 5), (0, 9), (2, 6), (0, u64::MAX)] {
        let error = stage.write_at(file, b"xx", offset).unwrap_err();
        assert!(matches!(error, Error::OutOfRange { .. }), "{error:?}");
    }
    let failed = stage.fill(0, 6, 4, |staged| {
        Err(stage.failed(io::ErrorKind::StorageFull.into(), staged.path))
    });
    assert!(
        matches!(failed, Err(Error::NoSpace { needed: 20, .. })),
        "{failed:?}"
    );
    assert!(matches!(
        stage.finish(),
        Err(Error::Incomplete { written: 0, .. })
    ));
}

#[test]
fn want_of_room_says_how_much_is_needed_and_where() {
    for kind in [
        io::ErrorKind::StorageFull,
        io::ErrorKind::QuotaExceeded,
        io::ErrorKind::FileTooLarge,
    ] {
        let error = write_error(kind.into(), Path::new("d/f"), 123_456, Path::new("d"));
        assert!(
            matches!(
                error,
                Error::NoSpace {
                    needed: 123_456,
                    ..
                }
            ),
            "{error:?}"
        );
        assert!(
            error.to_string().contains("123456 bytes are needed in d."),
            "{error}"
        );
    }
    let other = write_error(
        io::ErrorKind::PermissionDenied.into(),
        Path::new("d/f"),
        1,
        Path::new("d"),
    );
    assert!(matches!(other, Error::Io { .. }), "{other:?}");
}
