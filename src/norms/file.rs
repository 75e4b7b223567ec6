//! This program's norms file: safetensors, one f32 tensor per weight, under the weight's own name.
//!
//! `[in_features]` for a matrix, `[experts, in_features]` for a weight that holds one matrix per expert. The metadata
//! says how many `tokens` were summed and where they came from; `format: pt` is there because loaders want it. Any
//! safetensors reader opens it, and any tool can write one.
//!
//! The writer fixes what the format leaves open (order of names, order of metadata, padding), so that equal norms are
//! equal files and a hash of the file names them.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde::Serialize;

use super::cursor::f32s;
use super::entries::Norms;
use super::error::Error;
use super::provenance::{Format, Provenance};
use crate::untrusted::shown;

/// The longest header the safetensors format allows, in bytes.
const MAX_HEADER: u64 = 100_000_000;

/// Whether the bytes start like a safetensors file: a header length, then JSON.
pub(super) fn starts(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk() else {
        return false;
    };
    u64::from_le_bytes(*length) <= MAX_HEADER && rest.first() == Some(&b'{')
}

/// Reads a norms file.
pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<Norms, Error> {
    let malformed = |what: String| Error::malformed(path, Format::Safetensors, what);
    let (_, header) = SafeTensors::read_metadata(bytes)
        .map_err(|e| malformed(shown(&e.to_string()).to_string()))?;
    let tensors = SafeTensors::deserialize(bytes)
        .map_err(|e| malformed(shown(&e.to_string()).to_string()))?;

    let mut metadata: BTreeMap<String, String> = header
        .metadata()
        .clone()
        .unwrap_or_default()
        .into_iter()
        .collect();
    metadata.remove("format");
    let tokens = metadata.get("tokens").and_then(|t| t.parse().ok());
    if tokens.is_some() {
        metadata.remove("tokens");
    }

    let mut norms = Norms::new(Provenance {
        path: path.to_owned(),
        format: Format::Safetensors,
        tokens,
        metadata,
    });
    // In the order of the names, so that the first complaint is the same every time.
    let mut named: Vec<_> = tensors.iter().collect();
    named.sort_by_key(|&(name, _)| name);
    for (name, view) in named {
        let experts = match (view.dtype(), view.shape()) {
            (Dtype::F32, [_]) => None,
            (Dtype::F32, &[experts, _]) => Some(experts),
            (dtype, shape) => {
                let what = format!(
                    "`{}` is {dtype:?} {shape:?}, where norms are F32 [in_features] (is it a model's weights?)",
                    shown(name)
                );
                return Err(Error::not_norms(path, what));
            }
        };
        norms.put_new(name.to_owned(), experts, f32s(view.data()))?;
    }
    if norms.is_empty() {
        return Err(Error::not_norms(
            path,
            "it is a safetensors file without tensors",
        ));
    }
    Ok(norms)
}

#[derive(Serialize)]
struct Header<'a> {
    #[serde(rename = "__metadata__")]
    metadata: BTreeMap<&'a str, &'a str>,
    #[serde(flatten)]
    tensors: BTreeMap<&'a str, Tensor>,
}

#[derive(Serialize)]
struct Tensor {
    dtype: &'static str,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// The file's bytes up to the data.
fn header(norms: &Norms) -> Vec<u8> {
    let tokens = norms.source.tokens.map(|t| t.to_string());
    let mut metadata: BTreeMap<&str, &str> = norms
        .source
        .metadata
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    metadata.insert("format", "pt");
    if let Some(tokens) = &tokens {
        metadata.insert("tokens", tokens);
    }
    let mut end = 0;
    let mut tensors = BTreeMap::new();
    for (name, entry) in &norms.entries {
        let count = entry.values.len();
        let shape = match entry.experts {
            Some(experts) => vec![experts, count / experts],
            None => vec![count],
        };
        let start = end;
        end += count * size_of::<f32>();
        tensors.insert(
            name.as_str(),
            Tensor {
                dtype: "F32",
                shape,
                data_offsets: [start, end],
            },
        );
    }
    let mut json = serde_json::to_vec(&Header { metadata, tensors })
        .expect("maps of strings and integers are JSON");
    // Spaces to the next multiple of 8, so that the data is aligned in a mapped file.
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut out = (json.len() as u64).to_le_bytes().to_vec();
    out.append(&mut json);
    out
}

/// Writes a norms file: to a sibling first, then one rename.
pub(super) fn write(norms: &Norms, path: &Path) -> Result<(), Error> {
    if norms.entries.contains_key("__metadata__") {
        return Err(Error::malformed(
            path,
            Format::Safetensors,
            "no weight can be called `__metadata__`",
        ));
    }
    let unfinished = sibling(path);
    let written = write_new(norms, &unfinished).and_then(|()| fs::rename(&unfinished, path));
    written.map_err(|source| {
        // What is left of a failed write is of no use; that it may be gone already is no second error.
        let _ = fs::remove_file(&unfinished);
        Error::io(path, source)
    })
}

fn write_new(norms: &Norms, path: &Path) -> std::io::Result<()> {
    let mut out = BufWriter::new(OpenOptions::new().write(true).create_new(true).open(path)?);
    out.write_all(&header(norms))?;
    for entry in norms.entries.values() {
        for value in &entry.values {
            out.write_all(&value.to_le_bytes())?;
        }
    }
    out.into_inner()?.sync_data()
}

/// A name beside `path`, on the same file system, that no other process uses.
fn sibling(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.unfinished", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::super::lookup::Lookup;
    use super::*;

    const NORMS: &[u8] = include_bytes!("../../tests/fixtures/norms.safetensors");

    fn read(bytes: &[u8]) -> Result<Norms, Error> {
        Norms::parse(bytes, Path::new("norms.safetensors"))
    }

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("norms-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn a_file_written_by_the_python_package_reads_back() {
        let norms = read(NORMS).unwrap();
        assert_eq!((norms.len(), norms.source.tokens), (3, Some(8192)));
        assert_eq!(
            norms.source.metadata,
            BTreeMap::from([("source".into(), "a text".into())])
        );
        let down = norms
            .get("model.layers.0.mlp.down_proj.weight", None, 4)
            .unwrap();
        assert_eq!(down, Lookup::Measured(&[0.0, 0.5, 1.0, 1.5]));
        let expert = norms
            .get("model.layers.1.mlp.experts.down_proj", Some(1), 3)
            .unwrap();
        assert_eq!(expert, Lookup::Measured(&[3.0, 4.0, 5.0]));
    }

    #[test]
    fn what_is_written_reads_back_and_is_the_same_bytes_every_time() {
        let dir = scratch("roundtrip");
        let (a, b) = (dir.join("a.safetensors"), dir.join("b.safetensors"));
        let norms = read(NORMS).unwrap();
        norms.write(&a).unwrap();
        let mut again = Norms::read(&a).unwrap();
        assert_eq!(again.source.path, a);
        again.write(&b).unwrap();
        again.source.path = norms.source.path.clone();
        assert_eq!(again, norms);
        assert_eq!(fs::read(&a).unwrap(), fs::read(&b).unwrap());
        assert_eq!(
            fs::read_dir(&dir).unwrap().count(),
            2,
            "nothing unfinished is left"
        );
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let dir = scratch("failed");
        // The rename onto a directory that is not empty fails after the data has been written.
        fs::create_dir_all(dir.join("out/kept")).unwrap();
        assert!(read(NORMS).unwrap().write(&dir.join("out")).is_err());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_models_weights_are_not_norms() {
        let json = br#"{"w":{"dtype":"BF16","shape":[1,2],"data_offsets":[0,4]}}"#;
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json);
        bytes.extend([0; 4]);
        assert!(
            matches!(read(&bytes), Err(Error::NotNorms { what, .. }) if what.contains("BF16 [1, 2]"))
        );
    }

    #[test]
    fn no_cut_and_no_flipped_bit_makes_the_reader_panic() {
        super::super::tests::survives_damage(NORMS, 0);
    }
}
