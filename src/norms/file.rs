//! This program's norms file: safetensors, one f32 tensor per weight, under the weight's own name.
//!
//! `[in_features]` for a matrix, `[experts, in_features]` for a weight that holds one matrix per expert. Beside the norms
//! of a weight of experts, `NAME.tokens` says how many tokens each expert saw, `[experts]` or `[1]`, whole numbers in f32
//! (exact to 2^24); a reader that does not know it sees the norms of a weight that there is not. `NAME.means`, where they were
//! asked for, has the mean of each input feature, in the shape of the norms. `NAME.sketch`, likewise, is the sketch of the weight's
//! input, `[in_features, rank]` or `[experts, in_features, rank]`; weights that read the same input share one, and the metadata
//! `sketch_of` names it for the others. The metadata says how many `tokens` were summed and where they came from; `format: pt` is
//! there because loaders want it. Any safetensors reader opens it, and any tool can write one.
//!
//! The writer fixes what the format leaves open (order of names, order of metadata, padding), so that equal norms make equal
//! files.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::bytes::{Bytes, MAX_FILE};
use super::cursor::f32s;
use super::entries::Norms;
use super::error::Error;
use super::provenance::{Format, Provenance};
use super::sketches::{Places, Sketches};
#[cfg(feature = "native")]
use crate::checkpoint::Writer;
use crate::checkpoint::{Header, MAX_JSON, OutputOptions, Tensor, TensorSpec};
use crate::dtype::StoredDtype;
use crate::sketch::MAX_RANK;
use crate::untrusted::shown;

/// Bytes of the header's length, before the header.
const PREFIX: usize = 8;

/// What the name of a weight with experts goes on with in the name of their numbers of tokens.
const TOKENS: &str = ".tokens";

/// What the name of a weight goes on with in the name of the means of its inputs.
const MEANS: &str = ".means";
/// What the name of a weight goes on with in the name of its input's sketch.
const SKETCH: &str = ".sketch";

/// The metadata that say, as a JSON object, whose sketch serves a weight that has none of its own name.
const SHARED: &str = "sketch_of";

/// Whether the bytes start like a safetensors file: a header length, then JSON.
pub(super) fn starts(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk() else {
        return false;
    };
    u64::from_le_bytes(*length) <= MAX_JSON && rest.first() == Some(&b'{')
}

/// Reads a norms file of `len` bytes, but for its sketches.
pub(super) fn parse(bytes: &Bytes, len: u64, path: &Path) -> Result<Norms, Error> {
    let malformed = |what: String| Error::malformed(path, Format::Safetensors, what);
    let read = |offset, len| bytes.read(offset, len).map_err(|e| Error::io(path, e));
    let prefix = read(0, PREFIX)?;
    let header_len = prefix.first_chunk().map_or(0, |n| u64::from_le_bytes(*n));
    // `starts` has seen that it is at most MAX_JSON.
    let raw = read(0, PREFIX + header_len.min(len - PREFIX as u64) as usize)?;
    let header = Header::parse(raw, len).map_err(|e| malformed(e.to_string()))?;

    let mut metadata = header.metadata().clone();
    metadata.remove("format");
    let tokens = metadata.get("tokens").and_then(|t| t.parse().ok());
    if tokens.is_some() {
        metadata.remove("tokens");
    }
    let shared = metadata.remove(SHARED);

    // In the order of the names, so that a bad file gives the same error every time.
    let mut named: Vec<&Tensor> = header.tensors().iter().map(|tensor| &**tensor).collect();
    named.sort_by_key(|tensor| &tensor.name);
    let names: BTreeSet<&str> = named.iter().map(|tensor| tensor.name.as_str()).collect();
    let weight_of = |tensor: &Tensor, tail| {
        let weight = tensor.name.strip_suffix(tail)?;
        names.contains(weight).then(|| weight.to_owned())
    };
    let mut norms = Norms::new(Provenance {
        path: path.to_owned(),
        format: Format::Safetensors,
        tokens,
        metadata,
    });
    let (mut counts, mut means, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
    let mut sketches: Option<Sketches> = None;
    for tensor in named {
        if let Some(weight) = weight_of(tensor, SKETCH) {
            let (in_features, rank, places) = sketch_places(tensor)
                .ok_or_else(|| malformed(format!("`{}` is no sketch", shown(&tensor.name))))?;
            let sketches =
                sketches.get_or_insert_with(|| Sketches::of_file(path, rank, bytes.clone()));
            if sketches.rank() != rank {
                return Err(malformed("its sketches are of several ranks".to_owned()));
            }
            let places = Places {
                in_features,
                offsets: places,
            };
            sketches.entries.insert(weight, places);
            continue;
        }
        let experts = match (tensor.dtype, tensor.shape.as_slice()) {
            (StoredDtype::F32, [_]) => None,
            (StoredDtype::F32, &[experts, _]) => Some(experts),
            (dtype, shape) => {
                let what = format!(
                    "`{}` is {dtype} {shape:?}, where norms are F32 [in_features] (is it a model's weights?)",
                    shown(&tensor.name)
                );
                return Err(Error::not_norms(path, what));
            }
        };
        wanted.push((tensor, experts));
    }
    let total: u64 = wanted.iter().map(|(tensor, _)| tensor.len).sum();
    if total > MAX_FILE {
        return Err(Error::TooLarge {
            path: path.to_owned(),
            bytes: total,
            limit: MAX_FILE,
        });
    }
    for (tensor, experts) in wanted {
        let values = f32s(&read(tensor.offset, tensor.len as usize)?);
        match (weight_of(tensor, TOKENS), weight_of(tensor, MEANS)) {
            (Some(weight), _) => counts.push((weight, values)),
            (_, Some(weight)) => means.push((weight, values)),
            (None, None) => norms.put_new(tensor.name.clone(), experts, values)?,
        }
    }
    for (weight, means) in means {
        norms.insert_means(&weight, means)?;
    }
    for (weight, values) in counts {
        let whole = |&tokens: &f32| tokens >= 0.0 && tokens.fract() == 0.0;
        if !values.iter().all(whole) {
            let what = format!("the tokens of `{}` are no whole numbers", shown(&weight));
            return Err(malformed(what));
        }
        let tokens = values.iter().map(|&tokens| tokens as u64).collect();
        norms.put_tokens(&weight, tokens)?;
    }
    if norms.is_empty() {
        return Err(Error::not_norms(
            path,
            "it is a safetensors file without tensors",
        ));
    }
    if let (Some(sketches), Some(shared)) = (&mut sketches, shared) {
        let shared: BTreeMap<String, String> = serde_json::from_str(&shared)
            .map_err(|e| malformed(format!("its {SHARED}: {}", shown(&e.to_string()))))?;
        for (weight, of) in shared {
            let places = sketches.entries.get(&of).cloned();
            let places = places.ok_or_else(|| {
                malformed(format!(
                    "there is no sketch of `{}`, which serves `{}`",
                    shown(&of),
                    shown(&weight)
                ))
            })?;
            sketches.entries.insert(weight, places);
        }
    }
    norms.sketches = sketches;
    Ok(norms)
}

/// `in_features`, rank and the offset of each expert's sketch, of a tensor `[in_features, rank]` or `[experts, in_features,
/// rank]`.
fn sketch_places(tensor: &Tensor) -> Option<(usize, usize, Vec<u64>)> {
    let (experts, in_features, rank) = match (tensor.dtype, tensor.shape.as_slice()) {
        (StoredDtype::F32, &[in_features, rank]) => (1, in_features, rank),
        (StoredDtype::F32, &[experts, in_features, rank]) => (experts, in_features, rank),
        _ => return None,
    };
    // A tensor without elements could have any number of experts.
    if tensor.len == 0 || rank > MAX_RANK {
        return None;
    }
    let bytes = tensor.len / experts as u64;
    let offset = |expert| tensor.offset + expert as u64 * bytes;
    Some((in_features, rank, (0..experts).map(offset).collect()))
}

/// What a tensor of the file is made of.
#[cfg(feature = "native")]
enum Content<'a> {
    Values(Cow<'a, [f32]>),
    /// Of so many features each, by their offsets.
    Sketches(&'a Sketches, &'a Places),
}

/// Writes a norms file, in one step: what was there before is replaced by the whole file or not at all.
#[cfg(feature = "native")]
pub(super) fn write(norms: &Norms, path: &Path) -> Result<(), Error> {
    // In the order of the names, as everything.
    let mut tensors: BTreeMap<String, (Vec<usize>, Content<'_>)> = BTreeMap::new();
    for (name, entry) in &norms.entries {
        let count = entry.values.len();
        let shape = match entry.experts {
            Some(experts) => vec![experts, count / experts],
            None => vec![count],
        };
        if let Some(means) = &entry.means {
            let means = Content::Values(Cow::from(means));
            tensors.insert(format!("{name}{MEANS}"), (shape.clone(), means));
        }
        let values = Content::Values(Cow::from(&entry.values));
        tensors.insert(name.clone(), (shape, values));
        if let Some(tokens) = &entry.tokens {
            let counts: Vec<f32> = tokens.iter().map(|&tokens| tokens as f32).collect();
            let shape = vec![counts.len()];
            let counts = Content::Values(counts.into());
            tensors.insert(format!("{name}{TOKENS}"), (shape, counts));
        }
    }
    let mut metadata = norms.source.metadata.clone();
    if let Some(sketches) = &norms.sketches {
        // Weights that read the same input have one sketch between them, under the first name.
        let mut first: BTreeMap<&[u64], &str> = BTreeMap::new();
        let mut shared: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, places) in &sketches.entries {
            if let Some(of) = first.get(places.offsets.as_slice()) {
                shared.insert(name, of);
                continue;
            }
            first.insert(&places.offsets, name);
            let mut shape = vec![places.in_features, sketches.rank()];
            if places.offsets.len() > 1 {
                shape.insert(0, places.offsets.len());
            }
            let content = Content::Sketches(sketches, places);
            tensors.insert(format!("{name}{SKETCH}"), (shape, content));
        }
        if !shared.is_empty() {
            let shared = serde_json::to_string(&shared).unwrap_or_default();
            metadata.insert(SHARED.to_owned(), shared);
        }
    }
    let specs: Vec<TensorSpec> = (tensors.iter())
        .map(|(name, (shape, _))| TensorSpec::new(name, StoredDtype::F32, shape.clone()))
        .collect();
    metadata.insert("format".to_owned(), "pt".to_owned());
    if let Some(tokens) = norms.source.tokens {
        metadata.insert("tokens".to_owned(), tokens.to_string());
    }
    let header = Header::new(&specs, &metadata)
        .map_err(|problem| Error::malformed(path, Format::Safetensors, problem.to_string()))?;
    let options = OutputOptions::new().overwrite(true).sync(true);
    let file = Writer::create(path, header, &options)?;
    for (tensor, (_, content)) in tensors.values().enumerate() {
        match content {
            Content::Values(values) => {
                let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                file.write(tensor, 0, &bytes)?;
            }
            Content::Sketches(sketches, places) => {
                let mut first = 0;
                for &offset in &places.offsets {
                    let bytes = sketches.read(offset, places.in_features);
                    let bytes = bytes.map_err(|e| Error::io(&norms.source.path, e))?;
                    file.write(tensor, first, &bytes)?;
                    first += bytes.len() as u64;
                }
            }
        }
    }
    file.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

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
    fn the_tokens_of_experts_are_kept_beside_their_norms() {
        let dir = scratch("tokens");
        let mut norms = read(NORMS).unwrap();
        let fused = "model.layers.0.mlp.experts.down_proj";
        let single = "model.layers.0.mlp.experts.7.w1.weight";
        let rows = vec![1.0, 2.0, 0.0, 0.0];
        norms.insert_experts(fused, rows, vec![31, 0]).unwrap();
        norms
            .insert_experts(single, vec![3.0, 4.0], vec![40])
            .unwrap();
        assert!(norms.insert_experts(single, vec![1.0], vec![0]).is_err());
        norms
            .insert_experts(single, vec![3.0, 4.0], vec![40])
            .unwrap();
        let path = dir.join("norms.safetensors");
        norms.write(&path).unwrap();
        let again = Norms::read(&path).unwrap();
        assert_eq!(again.len(), 5, "numbers of tokens are not norms");
        assert_eq!(again.entries, norms.entries);
        assert_eq!(again.tokens(fused, Some(0)), Some(31));
        assert_eq!(again.tokens(fused, Some(1)), Some(0));
        assert_eq!(again.tokens(single, None), Some(40));
        assert_eq!(again.get(fused, Some(1), 2).unwrap(), Lookup::Unseen);
        let dense = "model.layers.0.mlp.down_proj.weight";
        assert_eq!(again.tokens(dense, None), None);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let dir = scratch("failed");
        // A file never replaces a directory.
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
