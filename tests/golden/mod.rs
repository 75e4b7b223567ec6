//! Reads `masks.safetensors`: the cases, and how their masks are named. See `README.md` beside this file.

#![allow(
    dead_code,
    reason = "a test crate that includes this module need not use all of it"
)]

use std::collections::BTreeMap;

use safetensors::SafeTensors;

use crate::oracle::{Dtype, Score, Selection};

/// How many cases `make_masks.py` writes.
pub const CASES: usize = 20;
/// How many masks it writes: eleven scores by nine selections of each case, and one or two more selections of some.
pub const MASKS: usize = 2079;

/// One tensor, its norms, and what must be pruned of it.
pub struct Case {
    /// `<flavour>-<dtype>-<rows>x<cols>`.
    pub name: String,
    /// How the weights are stored.
    pub dtype: Dtype,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Row-major little-endian weights.
    pub weights: Vec<u8>,
    /// One column norm an input feature.
    pub norms: Vec<f32>,
    /// The expected masks.
    pub masks: Vec<Expected>,
}

/// One expected mask of a case.
pub struct Expected {
    /// The whole name of the tensor in the file.
    pub name: String,
    /// What the weights are scored with.
    pub score: Score,
    /// Whether the score is given the norms of the case.
    pub with_norms: bool,
    /// What is selected.
    pub selection: Selection,
    /// `true` is pruned; `[rows, cols]`.
    pub pruned: Vec<bool>,
}

/// Every case of the file, in the order of their names.
pub fn cases() -> Vec<Case> {
    let file = include_bytes!("masks.safetensors");
    let file = SafeTensors::deserialize(file).expect("the golden file is a safetensors file");
    let mut cases = BTreeMap::new();
    let mut names = file.names();
    names.sort_unstable();
    for name in &names {
        let Some(case) = name.strip_suffix(".weights") else {
            continue;
        };
        let weights = file.tensor(name).expect("a listed tensor");
        let norms = file
            .tensor(&format!("{case}.norms"))
            .expect("weights have norms beside them");
        let norms: Vec<f32> = norms
            .data()
            .as_chunks()
            .0
            .iter()
            .map(|&le| f32::from_le_bytes(le))
            .collect();
        let [rows, cols] = *weights.shape() else {
            panic!("{name} is no matrix")
        };
        assert_eq!(norms.len(), cols, "{case}.norms");
        let case = Case {
            name: case.to_owned(),
            dtype: match weights.dtype() {
                safetensors::Dtype::BF16 => Dtype::Bf16,
                safetensors::Dtype::F16 => Dtype::F16,
                safetensors::Dtype::F32 => Dtype::F32,
                other => panic!("{name} is {other:?}"),
            },
            rows,
            cols,
            weights: weights.data().to_vec(),
            norms,
            masks: Vec::new(),
        };
        cases.insert(case.name.clone(), case);
    }
    for name in names {
        let mut parts = name.splitn(3, '.');
        let (Some(case), Some(score), Some(selection)) = (parts.next(), parts.next(), parts.next())
        else {
            continue; // weights or norms
        };
        let case = cases.get_mut(case).expect("a mask has weights beside it");
        let (score, with_norms) = parse_score(score);
        let packed = file.tensor(name).expect("a listed tensor");
        assert_eq!(packed.shape(), [case.rows, case.cols.div_ceil(8)], "{name}");
        case.masks.push(Expected {
            name: name.to_owned(),
            score,
            with_norms,
            selection: parse_selection(selection),
            pruned: unpack(packed.data(), case.cols),
        });
    }
    cases.into_values().collect()
}

/// The score that a name in the file stands for, and whether it is given norms.
fn parse_score(name: &str) -> (Score, bool) {
    match name {
        "swiftprune" => (Score::Swiftprune, true),
        "swiftprune-weight" => (Score::SwiftpruneWeight, true),
        "wanda" => (Score::Wanda, true),
        "ria" => (Score::Ria, true),
        "ria-no-norms" => (Score::Ria, false),
        "magnitude" => (Score::Magnitude, true),
        "stade" => (Score::Stade, true),
        "nowag" => (Score::Nowag, true),
        "nowag-no-norms" => (Score::Nowag, false),
        "z-pruner" => (Score::ZPruner, true),
        "z-pruner-no-norms" => (Score::ZPruner, false),
        _ => panic!("score {name}"),
    }
}

/// The selection that a name in the file stands for: `key=value`, comma separated.
fn parse_selection(name: &str) -> Selection {
    let options: BTreeMap<&str, &str> = name
        .split(',')
        .map(|option| option.split_once('=').expect("key=value"))
        .collect();
    let number = |key: &str| options[key].parse::<f64>().expect("a number");
    let ewma = || {
        let block = options.get("block").unwrap_or(&"128");
        let block: usize = block.parse().expect("a block size");
        let gain = options.get("gain").unwrap_or(&"1/8");
        let gain = gain.strip_prefix("1/").expect("a gain 1/2^g");
        let gain: u32 = gain.parse().expect("a gain 1/2^g");
        assert!(gain.is_power_of_two(), "{name}");
        (block, gain.trailing_zeros())
    };
    match name.split('=').next() {
        Some("sparsity") => {
            let (p, (block, gain_shift)) = (number("sparsity"), ewma());
            Selection::Sparsity {
                p,
                block,
                gain_shift,
            }
        }
        Some("lambda") => {
            let (x, (block, gain_shift)) = (number("lambda"), ewma());
            Selection::Lambda {
                x,
                block,
                gain_shift,
            }
        }
        Some("exact") => Selection::Exact { p: number("exact") },
        Some("pattern") => {
            let (n, m) = options["pattern"].split_once(':').expect("N:M");
            Selection::NOfM {
                n: n.parse().expect("N"),
                m: m.parse().expect("M"),
            }
        }
        _ => panic!("selection {name}"),
    }
}

/// One bool a weight from one bit a weight: column `8k + j` of a row is bit `j` of its byte `k`.
fn unpack(packed: &[u8], cols: usize) -> Vec<bool> {
    packed
        .chunks_exact(cols.div_ceil(8))
        .flat_map(|row| (0..cols).map(|j| row[j / 8] >> (j % 8) & 1 == 1))
        .collect()
}
