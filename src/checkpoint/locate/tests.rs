//! Which file a word on the command line means.

use super::*;

fn directory_with(names: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in names {
        fs::write(dir.path().join(name), "").unwrap();
    }
    dir
}

fn locate_in(dir: &Path) -> Result<Source> {
    locate_with(dir, None)
}

fn problem(result: Result<Source>) -> String {
    match result {
        Err(Error::NotACheckpoint { problem, .. }) => problem,
        other => panic!("expected NotACheckpoint, got {other:?}"),
    }
}

#[test]
fn files_are_told_by_their_names() {
    let dir = directory_with(&["a.safetensors", "a.safetensors.index.json", "a.gguf"]);
    let at = |name: &str| dir.path().join(name);
    assert_eq!(
        locate_in(&at("a.safetensors")).unwrap(),
        Source::File(at("a.safetensors"))
    );
    let index = at("a.safetensors.index.json");
    let source = locate_in(&index).unwrap();
    assert_eq!(source, Source::Index(index.clone()));
    assert_eq!(source.weights(), Weights::Sharded(index));
    assert_eq!(source.directory(), Some(dir.path()));
    assert!(problem(locate_in(&at("a.gguf"))).contains("neither"));
}

#[test]
fn a_directory_prefers_the_index_then_the_model_then_the_only_file() {
    let dir = directory_with(&["x.safetensors"]);
    let at = |name: &str| dir.path().join(name);
    let weights = || locate_in(dir.path()).unwrap().weights();
    assert_eq!(weights(), Weights::Single(at("x.safetensors")));
    fs::write(at("model.safetensors"), "").unwrap();
    assert_eq!(weights(), Weights::Single(at("model.safetensors")));
    fs::write(at("model.safetensors.index.json"), "").unwrap();
    assert_eq!(
        weights(),
        Weights::Sharded(at("model.safetensors.index.json"))
    );
}

#[test]
fn a_directory_without_safetensors_says_what_it_has() {
    let dir = directory_with(&[
        "config.json",
        "pytorch_model.bin",
        "m.Q4.gguf",
        "training_args.bin",
    ]);
    let message = problem(locate_in(dir.path()));
    assert!(
        message.contains("m.Q4.gguf, pytorch_model.bin,"),
        "{message}"
    );
    assert!(
        !message.contains("config.json") && !message.contains("training"),
        "{message}"
    );

    let message = problem(locate_in(directory_with(&["README.md"]).path()));
    assert!(message.contains("only README.md"), "{message}");
    assert!(problem(locate_in(directory_with(&[]).path())).contains("empty"));
}

#[test]
fn several_files_without_an_index_are_refused_and_listed() {
    let names: Vec<_> = (0..10).map(|i| format!("part-{i}.safetensors")).collect();
    let dir = directory_with(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let message = problem(locate_in(dir.path()));
    assert!(
        message.contains("part-0.safetensors, part-1") && message.contains("and 6 more"),
        "{message}"
    );
}

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A cache with one model, `org/name`.
fn cache(reference: &str) -> tempfile::TempDir {
    let hub = tempfile::tempdir().unwrap();
    let repository = hub.path().join("models--org--name");
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), reference).unwrap();
    fs::create_dir_all(repository.join("snapshots").join(COMMIT)).unwrap();
    fs::write(
        repository
            .join("snapshots")
            .join(COMMIT)
            .join("model.safetensors"),
        "",
    )
    .unwrap();
    hub
}

#[test]
fn a_repository_is_found_in_the_cache() {
    let hub = cache(&format!("{COMMIT}\n"));
    let repository = hub.path().join("models--org--name");
    let dir = repository.join("snapshots").join(COMMIT);
    let expected = Source::Cache {
        id: "org/name".into(),
        repository,
        weights: Weights::Single(dir.join("model.safetensors")),
        dir,
    };
    assert_eq!(
        locate_with(Path::new("org/name"), Some(hub.path())).unwrap(),
        expected
    );
}

#[test]
fn a_repository_that_is_not_in_the_cache_is_not_downloaded() {
    let hub = cache(COMMIT);
    let error = locate_with(Path::new("org/other"), Some(hub.path())).unwrap_err();
    assert!(
        matches!(
            &error,
            Error::NoSuchModel {
                searched: Some(_),
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.to_string().contains("downloads nothing"), "{error}");
}

#[test]
fn a_name_that_is_no_repository_is_not_looked_up() {
    let hub = cache(COMMIT);
    for model in [
        "no-such-thing",
        "org/../name",
        "org/name/x",
        "../name",
        "org/",
        "/name",
        "org\\name",
        "o--rg/name",
        "-o/name",
        "a\0/b",
        "",
    ] {
        let error = locate_with(Path::new(model), Some(hub.path())).unwrap_err();
        assert!(
            matches!(error, Error::NoSuchModel { searched: None, .. }),
            "{model}: {error:?}"
        );
    }
}

#[test]
fn a_reference_that_leads_elsewhere_is_refused() {
    for reference in [
        "",
        "..",
        "../../x",
        "/etc",
        "a b",
        "a\0",
        ".",
        &"a".repeat(129),
    ] {
        let error = locate_with(Path::new("org/name"), Some(cache(reference).path())).unwrap_err();
        assert!(
            matches!(error, Error::BrokenCache { .. }),
            "{reference}: {error:?}"
        );
    }
    let error = locate_with(Path::new("org/name"), Some(cache("abcdef").path())).unwrap_err();
    assert!(error.to_string().contains("not there"), "{error}");
    let hub = cache(COMMIT);
    fs::remove_file(hub.path().join("models--org--name/refs/main")).unwrap();
    assert!(matches!(
        locate_with(Path::new("org/name"), Some(hub.path())),
        Err(Error::BrokenCache { .. })
    ));
}

#[cfg(unix)]
#[test]
fn a_dangling_link_is_an_error_and_not_looked_up() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("m.safetensors");
    std::os::unix::fs::symlink("gone", &link).unwrap();
    assert!(matches!(locate_in(&link), Err(Error::Io { .. })));
}
