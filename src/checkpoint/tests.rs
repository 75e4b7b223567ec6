//! Opening checkpoints, and small checkpoints for the tests of this module.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::*;

/// The bytes of a safetensors file with one U8 tensor per name and length; byte `i` of the data is `i`.
pub(crate) fn safetensors(tensors: &[(&str, u64)]) -> Vec<u8> {
    let mut end = 0;
    let entries: Vec<_> = tensors
        .iter()
        .map(|(name, len)| {
            let begin = end;
            end += len;
            format!(r#"{name:?}:{{"dtype":"U8","shape":[{len}],"data_offsets":[{begin},{end}]}}"#)
        })
        .collect();
    let json = format!("{{{}}}  ", entries.join(","));
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(json.as_bytes());
    bytes.extend((0..end).map(|i| i as u8));
    bytes
}

/// A model directory `model` in a fresh directory, with two shards, an index and a config.json.
pub(crate) fn sharded() -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("model");
    fs::create_dir(&dir).unwrap();
    fs::write(
        dir.join("a-1.safetensors"),
        safetensors(&[("x", 300), ("y", 5)]),
    )
    .unwrap();
    fs::write(dir.join("a-2.safetensors"), safetensors(&[("z", 70)])).unwrap();
    let index =
        r#"{"weight_map":{"x":"a-1.safetensors","y":"a-1.safetensors","z":"a-2.safetensors"}}"#;
    fs::write(dir.join("model.safetensors.index.json"), index).unwrap();
    fs::write(dir.join("config.json"), r#"{"model_type":"llama"}"#).unwrap();
    (root, dir)
}

/// A file `model.safetensors` in a fresh directory.
pub(crate) fn single() -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("model.safetensors");
    fs::write(&path, safetensors(&[("x", 300), ("y", 5)])).unwrap();
    (root, path)
}

pub(crate) fn open(path: &Path) -> Result<Checkpoint> {
    Checkpoint::open(path.to_str().unwrap())
}

#[test]
fn a_file_is_opened_with_the_config_beside_it() {
    let (root, path) = single();
    assert_eq!(open(&path).unwrap().model_type(), None);
    fs::write(root.path().join("config.json"), r#"{"model_type":"qwen2"}"#).unwrap();
    let checkpoint = open(&path).unwrap();
    assert_eq!(checkpoint.model_type(), Some("qwen2"));
    assert_eq!(checkpoint.shards.len(), 1);
    assert_eq!(checkpoint.shards[0].file_name, "model.safetensors");
    assert_eq!(checkpoint.shards[0].len, fs::metadata(&path).unwrap().len());
    assert_eq!(open(root.path()).unwrap().shards[0].path, path);
}

#[test]
fn a_directory_in_shards_gives_the_tensors_of_all() {
    let (_root, dir) = sharded();
    let checkpoint = open(&dir).unwrap();
    let tensors: Vec<_> = checkpoint
        .tensors()
        .map(|(s, t)| (s, t.name.as_str(), t.len))
        .collect();
    assert_eq!(tensors, [(0, "x", 300), (0, "y", 5), (1, "z", 70)]);
    assert_eq!(checkpoint.model_type(), Some("llama"));
    let by_index = open(&dir.join("model.safetensors.index.json")).unwrap();
    assert_eq!(by_index.tensors().count(), 3);
}

#[test]
fn a_shard_that_is_missing_is_named() {
    let (_root, dir) = sharded();
    fs::remove_file(dir.join("a-2.safetensors")).unwrap();
    let error = open(&dir).unwrap_err();
    assert!(
        matches!(&error, Error::Index { problem: IndexError::MissingShard { file }, .. } if file == "a-2.safetensors"),
        "{error:?}"
    );
}

#[test]
fn shards_that_disagree_with_the_index_are_refused() {
    let (_root, dir) = sharded();
    fs::write(
        dir.join("a-2.safetensors"),
        safetensors(&[("z", 70), ("x", 1)]),
    )
    .unwrap();
    let error = open(&dir).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Index {
                problem: IndexError::TwoShards { .. },
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn what_loaders_do_not_mind_in_an_index_is_told_and_not_refused() {
    let (_root, dir) = sharded();
    let index = r#"{"weight_map":{"x":"a-2.safetensors","y":"a-1.safetensors","z":"a-2.safetensors",
        "mtp.0.w":"a-1.safetensors","mtp.norm.w":"mtp.safetensors"}}"#;
    fs::write(dir.join("model.safetensors.index.json"), index).unwrap();
    let shard = safetensors(&[("z", 70), ("w", 1)]);
    fs::write(dir.join("a-2.safetensors"), shard).unwrap();
    let checkpoint = open(&dir).unwrap();
    let absent: Vec<_> = checkpoint.absent().collect();
    assert_eq!(absent, ["mtp.0.w", "mtp.norm.w"]);
    let said = checkpoint.warnings().join("\n");
    for name in ["mtp.0.w, mtp.norm.w", ": x", ": w"] {
        assert!(said.contains(name), "{name}: {said}");
    }
    // A missing file with something else in it is an incomplete model.
    let index = index.replace("mtp.norm.w", "norm.w");
    fs::write(dir.join("model.safetensors.index.json"), index).unwrap();
    let error = open(&dir).unwrap_err();
    assert!(
        matches!(&error, Error::Index { problem: IndexError::MissingShard { file }, .. } if file == "mtp.safetensors"),
        "{error:?}"
    );
}

#[test]
fn a_tensor_in_two_shards_is_refused_unless_its_bytes_are_the_same() {
    let (_root, dir) = sharded();
    let place = dir.join("a-2.safetensors");
    // `x` is bytes from 0 in both, as it is the first.
    fs::write(&place, safetensors(&[("x", 300), ("z", 70)])).unwrap();
    let checkpoint = open(&dir).unwrap();
    assert_eq!(checkpoint.tensors().count(), 4);
    assert!(checkpoint.warnings()[0].contains("in two shards"));
    fs::write(&place, safetensors(&[("z", 70), ("x", 300)])).unwrap();
    let error = open(&dir).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Index {
                problem: IndexError::TwoShards { .. },
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn a_broken_or_huge_config_is_an_error_that_names_it() {
    let (root, path) = single();
    let config = root.path().join("config.json");
    fs::write(&config, "{\"model_type\":").unwrap();
    let error = open(&path).unwrap_err();
    assert!(
        matches!(&error, Error::Config { path, .. } if *path == config),
        "{error:?}"
    );
    assert!(error.to_string().contains("config.json"), "{error}");
    let file = File::create(&config).unwrap();
    file.set_len(MAX_CONFIG + 1).unwrap();
    let error = open(&path).unwrap_err();
    assert!(error.to_string().contains("too many"), "{error}");
}

#[test]
fn a_truncated_file_is_refused_at_every_length() {
    let (_root, path) = single();
    let whole = fs::read(&path).unwrap();
    for len in 0..whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        let error = open(&path).unwrap_err();
        assert!(matches!(error, Error::Header { .. }), "{len}: {error:?}");
    }
    fs::write(&path, &whole).unwrap();
    assert!(open(&path).is_ok());
}

#[test]
fn weights_that_are_not_a_regular_file_are_refused() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("model.safetensors")).unwrap();
    assert!(matches!(open(root.path()), Err(Error::NotRegular { .. })));
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("/dev/zero", root.path().join("zero.safetensors")).unwrap();
        let error = open(&root.path().join("zero.safetensors")).unwrap_err();
        assert!(matches!(error, Error::NotRegular { .. }), "{error:?}");
    }
}

#[cfg(unix)]
#[test]
fn weights_may_be_links_to_regular_files() {
    let (root, path) = single();
    let link = root.path().join("link.safetensors");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(open(&link).unwrap().shards[0].file_name, "link.safetensors");
}

#[test]
fn the_default_output_lies_beside_the_input() {
    let checkpoint = |source| Checkpoint {
        source,
        shards: Vec::new(),
        config: None,
        discrepancies: Vec::new(),
    };
    let output = |source| checkpoint(source).default_output();
    let weights = || Weights::Single(PathBuf::new());
    let directory = |dir: &str| Source::Directory {
        dir: dir.into(),
        weights: weights(),
    };
    assert_eq!(
        output(Source::File("d/model.safetensors".into())),
        Path::new("d/model-pruned.safetensors")
    );
    assert_eq!(output(directory("d/llama/")), Path::new("d/llama-pruned"));
    assert_eq!(
        output(directory("Llama-3.2-1B")),
        Path::new("Llama-3.2-1B-pruned")
    );
    assert_eq!(
        output(Source::Index("d/llama/model.safetensors.index.json".into())),
        Path::new("d/llama-pruned")
    );
    let cache = Source::Cache {
        id: "org/name".into(),
        repository: "r".into(),
        dir: "r/snapshots/1".into(),
        weights: weights(),
    };
    assert_eq!(output(cache), Path::new("name-pruned"));
    let here = std::env::current_dir().unwrap();
    let name = here.file_name().unwrap().to_str().unwrap();
    assert_eq!(
        output(directory(".")),
        here.with_file_name(format!("{name}-pruned"))
    );
}

#[test]
fn a_file_that_the_index_beside_it_does_not_name_is_refused_unless_one_is_named() {
    let (_root, dir) = sharded();
    let stray = dir.join("model.safetensors");
    fs::write(&stray, safetensors(&[("x", 3)])).unwrap();
    let error = open(&dir).unwrap_err();
    let index = dir.join("model.safetensors.index.json");
    assert!(
        matches!(&error, Error::TwoCheckpoints { index: i, file } if *i == index && *file == stray),
        "{error:?}"
    );
    assert_eq!(open(&stray).unwrap().tensors().count(), 1);
    assert_eq!(open(&index).unwrap().tensors().count(), 3);
}

#[test]
fn an_index_may_name_the_single_file_itself() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("model.safetensors");
    fs::write(file, safetensors(&[("x", 3)])).unwrap();
    let index = root.path().join("model.safetensors.index.json");
    fs::write(index, r#"{"weight_map":{"x":"model.safetensors"}}"#).unwrap();
    assert_eq!(open(root.path()).unwrap().tensors().count(), 1);
}

#[test]
fn a_quantised_model_is_refused_by_its_config_before_its_weights_are_read() {
    let (root, path) = single();
    let config = root.path().join("config.json");
    fs::write(
        &config,
        r#"{"quantization_config":{"quant_method":"gptq"}}"#,
    )
    .unwrap();
    fs::write(&path, "not even a header").unwrap();
    let error = open(root.path()).unwrap_err();
    assert!(
        matches!(&error, Error::Quantized { path, method } if *path == config && method == "gptq"),
        "{error:?}"
    );
}

#[test]
fn a_quantised_model_without_a_config_is_refused_by_its_tensors() {
    for name in [
        "model.layers.0.mlp.up_proj.qweight",
        "model.layers.0.mlp.experts.gate_up_proj_blocks",
        "model.layers.0.mlp.experts.w1_scales",
        "model.layers.0.mlp.up_proj.weight_scale_inv",
    ] {
        let (root, path) = single();
        fs::write(&path, safetensors(&[("a.weight", 4), (name, 3)])).unwrap();
        let error = open(root.path()).unwrap_err();
        assert!(
            matches!(&error, Error::Quantized { method, .. } if method.contains(name)),
            "{error:?}"
        );
    }
}

#[test]
fn a_git_lfs_pointer_is_named_in_place_of_every_file() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
    for name in [
        "a-1.safetensors",
        "model.safetensors.index.json",
        "config.json",
    ] {
        let (_root, dir) = sharded();
        fs::write(dir.join(name), pointer).unwrap();
        let error = open(&dir).unwrap_err();
        assert!(
            matches!(&error, Error::LfsPointer { path } if path.ends_with(name)),
            "{error:?}"
        );
        assert!(error.to_string().contains("git lfs pull"), "{error}");
    }
}

#[test]
fn an_adapter_says_that_it_is_one() {
    let root = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        ("adapter_config.json", b"{}".to_vec()),
        ("adapter_model.safetensors", safetensors(&[("x", 3)])),
    ] {
        fs::write(root.path().join(name), bytes).unwrap();
    }
    let error = open(root.path()).unwrap_err();
    assert!(error.to_string().contains("it is an adapter"), "{error}");
}

#[test]
fn a_snapshot_given_by_its_path_is_one_of_the_cache() {
    let root = tempfile::tempdir().unwrap();
    let repository = root.path().join("models--org--some--name");
    let dir = repository.join("snapshots/abc");
    fs::create_dir_all(&dir).unwrap();
    fs::create_dir_all(repository.join("blobs")).unwrap();
    fs::write(dir.join("model.safetensors"), safetensors(&[("x", 9)])).unwrap();
    let index = dir.join("model.safetensors.index.json");
    fs::write(&index, r#"{"weight_map":{"x":"model.safetensors"}}"#).unwrap();
    let by_path = open(&dir).unwrap();
    assert!(
        matches!(&by_path.source, Source::Cache { id, .. } if id == "org/some--name"),
        "{:?}",
        by_path.source
    );
    let here = |path: &str| PathBuf::from(path);
    assert_eq!(by_path.default_output(), here("some--name-pruned"));
    assert_eq!(
        open(&index).unwrap().default_output(),
        here("some--name-pruned")
    );
    let file = open(&dir.join("model.safetensors")).unwrap();
    assert_eq!(file.default_output(), here("some--name-pruned.safetensors"));
    for (checkpoint, out) in [
        (&by_path, repository.join("snapshots/abc-pruned")),
        (&file, dir.join("out.safetensors")),
        (&file, repository.join("out.safetensors")),
    ] {
        let error = Output::create(checkpoint, &out, &OutputOptions::new()).unwrap_err();
        assert!(
            matches!(
                error,
                Error::OutputInCache { .. } | Error::OutputIsInput { .. }
            ),
            "{error:?}"
        );
    }
    // Another model's output is not let in either.
    let (_other, other) = sharded();
    let out = repository.join("snapshots/out");
    let error = Output::create(&open(&other).unwrap(), &out, &OutputOptions::new()).unwrap_err();
    assert!(matches!(error, Error::OutputInCache { .. }), "{error:?}");
}
