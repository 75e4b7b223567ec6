//! `prune --sequential` on the example model, as a user runs it: each block is pruned by what the blocks before it give once they
//! are pruned.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use safetensors::SafeTensors;

use crate::place::{EXAMPLE, Place, said};

impl Place {
    fn prune_on_cpu(&self, model: &Path, out: &str, how: &[&str]) -> Output {
        let model = model.to_str().unwrap();
        let words = ["prune", model, "-o", out, "--force", "--device", "cpu"];
        self.run(&[&words, how].concat())
    }

    /// The weights of the output.
    #[track_caller]
    fn pruned(&self, model: &Path, out: &str, how: &[&str]) -> Vec<u8> {
        let done = self.prune_on_cpu(model, out, &[how, &["--tokens", "640"]].concat());
        assert_eq!(done.status.code(), Some(0), "{}", said(&done));
        self.weights(out)
    }
}

fn example() -> PathBuf {
    PathBuf::from(EXAMPLE)
}

fn block(name: &str) -> Option<usize> {
    let number = name.strip_prefix("model.layers.")?.split('.').next()?;
    number.parse().ok()
}

/// The dense weights, with those of the blocks before `blocks` pruned.
fn pruned_before(blocks: usize, dense: &[u8], pruned: &[u8]) -> Vec<u8> {
    let mut mixed = dense.to_vec();
    let of_pruned = SafeTensors::deserialize(pruned).unwrap();
    for (name, tensor) in of_pruned.iter() {
        if block(name).is_some_and(|block| block < blocks) {
            // Both files have the same header.
            let first = tensor.data().as_ptr() as usize - pruned.as_ptr() as usize;
            mixed[first..first + tensor.data().len()].copy_from_slice(tensor.data());
        }
    }
    mixed
}

/// A model that is pruned as far as some block, pruned whole by an ordinary run, has that block as the sequential run has it.
#[test]
fn each_block_is_pruned_as_in_a_model_whose_blocks_before_it_are_pruned() {
    let place = Place::new();
    let dense = fs::read(example().join("model.safetensors")).unwrap();
    for how in [
        &["--sparsity", "0.6"][..],
        &["--pattern", "2:4", "--compensate", "32"],
        &[
            "--sparsity",
            "0.5",
            "--compensate",
            "16",
            "--allocate",
            "atp",
        ],
        &["--score", "stade"],
    ] {
        let sequential = place.pruned(&example(), "sequential", &[how, &["--sequential"]].concat());
        let at_once = place.pruned(&example(), "at-once", how);
        assert_ne!(sequential, at_once, "{how:?} is not sequential");
        let names = SafeTensors::deserialize(&dense).unwrap();
        let blocks = 1 + names.names().into_iter().filter_map(block).max().unwrap();
        let mixed = place.path("mixed");
        fs::create_dir_all(&mixed).unwrap();
        for file in ["config.json", "tokenizer.json"] {
            fs::copy(example().join(file), mixed.join(file)).unwrap();
        }
        for here in 0..blocks {
            let weights = pruned_before(here, &dense, &sequential);
            fs::write(mixed.join("model.safetensors"), weights).unwrap();
            let expected = place.pruned(&mixed, "expected", how);
            let expected = SafeTensors::deserialize(&expected).unwrap();
            let found = SafeTensors::deserialize(&sequential).unwrap();
            for (name, tensor) in found.iter().filter(|(name, _)| block(name) == Some(here)) {
                let expected = expected.tensor(name).unwrap();
                assert!(tensor.data() == expected.data(), "{how:?}: {name}");
            }
        }
    }
}

#[test]
fn the_result_is_the_same_with_any_number_of_threads() {
    let place = Place::new();
    let how = ["--sequential", "--compensate", "16", "--verify"];
    let one = place.pruned(&example(), "one", &[&how[..], &["--threads", "1"]].concat());
    let three = place.pruned(
        &example(),
        "three",
        &[&how[..], &["--threads", "3"]].concat(),
    );
    assert!(one == three);
}

#[test]
fn what_cannot_be_measured_block_by_block_is_refused_with_the_way_on() {
    let place = Place::new();
    for (how, way_on) in [
        (&["--calibration", "none"][..], "needs a calibration"),
        (&["--score", "magnitude"], "a score that uses norms"),
        (&["--allocate", "owl"], "--allocate atp"),
        (&["--norms", "norms.safetensors"], "cannot be used with"),
    ] {
        let done = place.prune_on_cpu(&example(), "refused", &[how, &["--sequential"]].concat());
        let said = said(&done);
        assert_ne!(done.status.code(), Some(0), "{said}");
        assert!(!place.path("refused").exists());
        assert!(said.contains(way_on), "{how:?}: {said}");
    }
}
