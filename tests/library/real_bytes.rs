//! The example, byte by byte: what pruning may change in a real checkpoint, and what it may not.
//!
//! Everything here looks at files with a reader of its own, a dozen lines on top of `serde_json`: the library's reader
//! would forgive the library's mistakes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use swiftprune_wgpu::checkpoint::{Checkpoint, Output, OutputOptions};
use swiftprune_wgpu::device::{Device, DeviceChoice};
use swiftprune_wgpu::plan::Score;
use swiftprune_wgpu::plan::{Ewma, Pattern, Selection};
use swiftprune_wgpu::plan::{Options, Plan};
use swiftprune_wgpu::prune::{Stop, prune};

/// Linear weights of the example's four blocks.
const PRUNED: usize = 28;
/// All its tensors.
const TENSORS: usize = 38;

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tiny-llama")
}

fn half() -> Selection {
    fraction(0.5)
}

fn fraction(sparsity: f64) -> Selection {
    Selection::Ewma {
        sparsity,
        ewma: Ewma::default(),
    }
}

fn two_of_four() -> Selection {
    Selection::Pattern(Pattern::new(2, 4).unwrap())
}

/// Prunes on the CPU with the default score, or with this one.
fn run(model: &Path, out: &Path, selection: Selection, score: Option<&str>) {
    let checkpoint = Checkpoint::open(model.to_str().unwrap()).unwrap();
    let output = Output::create(&checkpoint, out, &OutputOptions::new()).unwrap();
    let mut options = Options::new(selection);
    options.score = score.map(|name| Score::by_name(name).unwrap());
    let plan = Plan::new(checkpoint, options, None).unwrap();
    let device = Device::open(&DeviceChoice::Cpu).unwrap();
    prune(&plan, &device, output, &|_| (), &Stop::new()).unwrap();
}

/// A safetensors file, taken apart.
struct Tensors {
    /// Length, JSON and padding, as they are in the file.
    header: Vec<u8>,
    /// Shape and bytes of every tensor.
    tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)>,
}

fn read(path: &Path) -> Tensors {
    let file = fs::read(path).unwrap();
    let json = usize::try_from(u64::from_le_bytes(file[..8].try_into().unwrap())).unwrap();
    let (header, data) = file.split_at(8 + json);
    let entries: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&header[8..]).unwrap();
    let number = |value: &serde_json::Value| usize::try_from(value.as_u64().unwrap()).unwrap();
    let tensors = entries
        .iter()
        .filter(|(name, _)| *name != "__metadata__")
        .map(|(name, entry)| {
            assert_eq!(entry["dtype"], "BF16", "{name}");
            let shape = entry["shape"].as_array().unwrap().iter().map(number);
            let offsets = &entry["data_offsets"];
            let bytes = data[number(&offsets[0])..number(&offsets[1])].to_vec();
            (name.clone(), (shape.collect(), bytes))
        })
        .collect();
    Tensors {
        header: header.to_vec(),
        tensors,
    }
}

fn bf16(bytes: &[u8]) -> Vec<u16> {
    bytes
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .collect()
}

fn is_zero(weight: u16) -> bool {
    weight & 0x7fff == 0
}

/// Whether this tensor is one that is pruned by default, told by its name alone.
fn is_pruned(name: &str) -> bool {
    name.starts_with("model.layers.") && name.ends_with("_proj.weight")
}

/// What is wrong with a pruned tensor: a survivor with other bits, a zero that is not +0.0, or a group of `group` columns
/// without exactly `zeros` of them.
fn faults(before: &[u16], after: &[u16], group: usize, zeros: usize) -> Vec<String> {
    assert_eq!(before.len(), after.len());
    assert_eq!(after.len() % group, 0);
    let mut faults = Vec::new();
    for (i, (&old, &new)) in before.iter().zip(after).enumerate() {
        if is_zero(new) && new != 0 {
            faults.push(format!("weight {i} is -0.0"));
        } else if !is_zero(new) && new != old {
            faults.push(format!("weight {i} was {old:#06x} and is {new:#06x}"));
        }
    }
    for (g, weights) in after.chunks_exact(group).enumerate() {
        let found = weights.iter().filter(|&&weight| is_zero(weight)).count();
        if found != zeros {
            faults.push(format!("group {g} has {found} zeros, not {zeros}"));
        }
    }
    faults
}

/// Checks every tensor of a pruned file against the original; `group_and_zeros` is asked with in_features.
fn check(before: &Tensors, after: &Tensors, group_and_zeros: &dyn Fn(usize) -> (usize, usize)) {
    assert!(before.header == after.header, "the header has changed");
    assert_eq!(after.tensors.len(), TENSORS);
    let mut pruned = 0;
    for (name, (shape, old)) in &before.tensors {
        let (_, new) = &after.tensors[name];
        if is_pruned(name) {
            let (group, zeros) = group_and_zeros(shape[1]);
            let faults = faults(&bf16(old), &bf16(new), group, zeros);
            assert!(faults.is_empty(), "{name}: {faults:?}");
            pruned += 1;
        } else {
            assert!(old == new, "{name} is no target and has changed");
        }
    }
    assert_eq!(pruned, PRUNED);
}

/// k zeros in each row.
fn rows(sparsity: f64) -> impl Fn(usize) -> (usize, usize) {
    move |in_features| {
        let k = (sparsity * in_features as f64 + 0.5).floor() as usize;
        (in_features, k)
    }
}

/// A copy of the example in two shards with an index, split in the middle of its tensors.
fn sharded_copy(dir: &Path) {
    fs::create_dir(dir).unwrap();
    for entry in fs::read_dir(example()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "model.safetensors" {
            fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
        }
    }
    let whole = read(&example().join("model.safetensors"));
    let tensors: Vec<_> = whole.tensors.iter().collect();
    let mut map = serde_json::Map::new();
    for (i, part) in tensors.chunks(TENSORS / 2).enumerate() {
        let file = format!("model-{:05}-of-00002.safetensors", i + 1);
        let mut data = Vec::new();
        let mut header = serde_json::Map::new();
        for (name, (shape, bytes)) in part {
            let begin = data.len();
            data.extend_from_slice(bytes);
            header.insert(
                (*name).clone(),
                serde_json::json!({"dtype": "BF16", "shape": shape, "data_offsets": [begin, data.len()]}),
            );
            map.insert((*name).clone(), file.clone().into());
        }
        // Spaces at the end, as other writers leave them.
        let json = serde_json::to_string(&header).unwrap() + "   ";
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(json.as_bytes());
        bytes.extend_from_slice(&data);
        fs::write(dir.join(file), bytes).unwrap();
    }
    let index = serde_json::json!({"metadata": {"total_size": 3_935_616}, "weight_map": map});
    fs::write(
        dir.join("model.safetensors.index.json"),
        serde_json::to_string(&index).unwrap(),
    )
    .unwrap();
}

#[test]
fn a_file_changes_only_where_it_is_pruned_and_by_exactly_k_a_row() {
    let temporary = tempfile::tempdir().unwrap();
    let model = example().join("model.safetensors");
    let before = read(&model);
    for sparsity in [0.5, 0.3] {
        let out = temporary.path().join(format!("{sparsity}.safetensors"));
        run(&model, &out, fraction(sparsity), None);
        check(&before, &read(&out), &rows(sparsity));
    }
    assert!(
        before.header == read(&model).header,
        "the input has changed"
    );
}

#[test]
fn a_directory_comes_out_whole_with_the_same_weights_as_the_file() {
    let temporary = tempfile::tempdir().unwrap();
    let (dir, file) = (
        temporary.path().join("dir"),
        temporary.path().join("file.safetensors"),
    );
    run(&example(), &dir, half(), None);
    run(&example().join("model.safetensors"), &file, half(), None);
    let names = |dir: &Path| {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    // All that belongs to a model; the text to evaluate on does not.
    let mut belongs = names(&example());
    belongs.retain(|name| name != "heldout.txt");
    assert_eq!(names(&dir), belongs);
    for name in names(&dir) {
        let expected = match name.to_str() {
            Some("model.safetensors") => file.clone(),
            _ => example().join(&name),
        };
        assert!(
            fs::read(dir.join(&name)).unwrap() == fs::read(expected).unwrap(),
            "{name:?} differs"
        );
    }
}

#[test]
fn a_checkpoint_in_shards_gives_the_same_tensors_shard_by_shard() {
    let temporary = tempfile::tempdir().unwrap();
    let (shards, out, whole) = (
        temporary.path().join("shards"),
        temporary.path().join("out"),
        temporary.path().join("whole.safetensors"),
    );
    sharded_copy(&shards);
    run(&shards, &out, half(), None);
    run(&example().join("model.safetensors"), &whole, half(), None);
    let whole = read(&whole);
    let mut seen = 0;
    for shard in [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ] {
        let (before, after) = (read(&shards.join(shard)), read(&out.join(shard)));
        assert!(before.header == after.header, "{shard}: header");
        for (name, tensor) in &after.tensors {
            assert!(*tensor == whole.tensors[name], "{shard}: {name}");
            seen += 1;
        }
    }
    assert_eq!(seen, TENSORS);
    for same in ["model.safetensors.index.json", "config.json"] {
        assert_eq!(
            fs::read(out.join(same)).unwrap(),
            fs::read(shards.join(same)).unwrap(),
            "{same}"
        );
    }
}

#[test]
fn two_of_four_holds_in_every_group() {
    let temporary = tempfile::tempdir().unwrap();
    let model = example().join("model.safetensors");
    let out = temporary.path().join("out.safetensors");
    run(&model, &out, two_of_four(), None);
    check(&read(&model), &read(&out), &|_| (4, 2));
}

#[test]
fn pruning_again_changes_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let model = example().join("model.safetensors");
    for (i, selection) in [half(), fraction(0.3), two_of_four()]
        .into_iter()
        .enumerate()
    {
        for score in ["ria", "magnitude"] {
            let once = temporary.path().join(format!("{score}-{i}.safetensors"));
            let twice = temporary
                .path()
                .join(format!("{score}-{i}-again.safetensors"));
            run(&model, &once, selection, Some(score));
            run(&once, &twice, selection, Some(score));
            assert!(
                fs::read(&once).unwrap() == fs::read(&twice).unwrap(),
                "{score} {selection:?}"
            );
        }
    }
}

#[test]
fn the_checks_of_this_file_notice_what_they_are_for() {
    let before = [0x3f80, 0x4000, 0x4040, 0x8000];
    assert!(faults(&before, &[0, 0x4000, 0x4040, 0], 4, 2).is_empty());
    let wrong_bits = faults(&before, &[0, 0x4001, 0x4040, 0], 4, 2);
    assert_eq!(wrong_bits, ["weight 1 was 0x4000 and is 0x4001"]);
    let negative_zero = faults(&before, &[0, 0x4000, 0x4040, 0x8000], 4, 2);
    assert_eq!(negative_zero, ["weight 3 is -0.0"]);
    let too_few = faults(&before, &[0x3f80, 0x4000, 0x4040, 0], 4, 2);
    assert_eq!(too_few, ["group 0 has 1 zeros, not 2"]);
}
