//! Descriptions that no family here gives: the same model, stored in other ways.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use super::unwatched;
use super::{Error, Forward, WeightOverlay};
use crate::checkpoint::Checkpoint;
use crate::device::{Backend, Device, DeviceChoice, devices};
use crate::model::{Architecture, FeedForward, Linear, Projections};
use crate::names::rules::Layout;

fn original() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/forward/qwen2")
}

/// The qwen2 checkpoint with queries, keys and values in one tensor a block, gate and up in one, and these and `down` as
/// `[in_features, out_features]`.
fn stored_otherwise() -> tempfile::TempDir {
    let bytes = fs::read(original().join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let halves = |name: &str| -> Vec<u16> {
        bytemuck::pod_collect_to_vec(tensors.tensor(name).unwrap().data())
    };
    let transposed = |x: &[u16], columns: usize| -> Vec<u16> {
        let rows = x.len() / columns;
        let index = (0..columns).flat_map(|c| (0..rows).map(move |r| r * columns + c));
        index.map(|i| x[i]).collect()
    };
    let mut all: Vec<(String, Vec<usize>, Vec<u16>)> = tensors
        .iter()
        .map(|(name, tensor)| (name.to_owned(), tensor.shape().to_vec(), halves(name)))
        .collect();
    for block in 0..2 {
        let module = |name: &str| format!("model.layers.{block}.{name}");
        for (joined, parts) in [
            (
                "qkv",
                &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"][..],
            ),
            ("gate_up", &["mlp.gate_proj", "mlp.up_proj"]),
            ("down", &["mlp.down_proj"]),
        ] {
            let of = |end: &str| -> Vec<u16> {
                let names = parts.iter().map(|part| format!("{}.{end}", module(part)));
                names.flat_map(|name| halves(&name)).collect()
            };
            let columns = if joined == "down" { 96 } else { 64 };
            let weight = transposed(&of("weight"), columns);
            let shape = vec![columns, weight.len() / columns];
            all.push((module(joined) + ".weight", shape, weight));
            if joined == "qkv" {
                let bias = of("bias");
                all.push((module(joined) + ".bias", vec![bias.len()], bias));
            }
        }
    }
    let views = all.iter().map(|(name, shape, values)| {
        let data = bytemuck::cast_slice(values);
        let view = TensorView::new(safetensors::Dtype::BF16, shape.clone(), data);
        (name, view.unwrap())
    });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
    fs::copy(
        original().join("config.json"),
        dir.path().join("config.json"),
    )
    .unwrap();
    dir
}

/// Has the layers read their parts of a tensor that is stored as `[in_features, out_features]`.
fn join(tensor: &str, layers: Vec<&mut Linear>) {
    let stored_features = layers.iter().map(|layer| layer.out_features).sum();
    let mut first_feature = 0;
    for layer in layers {
        layer.weight = format!("{tensor}.weight");
        layer.bias = layer.bias.as_ref().map(|_| format!("{tensor}.bias"));
        layer.layout = Layout::InOut;
        layer.stored_features = stored_features;
        layer.first_feature = first_feature;
        first_feature += layer.out_features;
    }
}

/// The CPU, and every adapter here.
fn every_device() -> impl Iterator<Item = Device> {
    let cpu = Device::open(&DeviceChoice::Cpu).unwrap();
    let adapters = devices().into_iter();
    let adapters = adapters.map(|info| DeviceChoice::Index(info.index.unwrap()));
    let adapters = adapters.map(|choice| Device::open(&choice).unwrap());
    std::iter::once(cpu).chain(adapters)
}

#[test]
fn joined_and_transposed_tensors_give_what_the_plain_ones_do() {
    let dir = stored_otherwise();
    let checkpoint = Checkpoint::open(dir.path().to_str().unwrap()).unwrap();
    let plain = Architecture::of(&checkpoint).unwrap();
    let mut joined = plain.clone();
    for (index, block) in joined.blocks.iter_mut().enumerate() {
        let name = |module: &str| format!("model.layers.{index}.{module}");
        for attention in block.attentions_mut() {
            let Projections::Separate(projections) = &mut attention.projections else {
                panic!("qwen2 has a tensor for each");
            };
            join(&name("qkv"), projections.iter_mut().collect());
        }
        let Some(FeedForward::Dense(mlp)) = &mut block.mlp else {
            panic!("qwen2 has no experts");
        };
        let gate_up = mlp.gate.iter_mut().chain([&mut mlp.up]);
        join(&name("gate_up"), gate_up.collect());
        join(&name("down"), vec![&mut mlp.down]);
    }
    let readers: Vec<_> = joined.sites().map(|site| site.readers).collect();
    assert_eq!(readers.len(), 8);
    assert_eq!(readers[4], ["model.layers.1.qkv.weight"]);
    assert_eq!(readers[6], ["model.layers.1.gate_up.weight"]);

    let tokens: Vec<u32> = (0..40).map(|i| (i * i * 7 + 3) % 80).collect();
    for device in every_device() {
        let run = |architecture| {
            let forward = Forward::new(&checkpoint, architecture, &device);
            let statistics = forward.statistics(&[&tokens], &unwatched).unwrap();
            let norms: Vec<_> = statistics.into_iter().map(|s| s.column_norms).collect();
            (forward.logits(&tokens).unwrap(), norms)
        };
        assert_eq!(run(&joined), run(&plain), "{}", device.info());
    }
}

/// Weights as they are in the files.
#[derive(Debug)]
struct AsTheyAre;

impl WeightOverlay for AsTheyAre {
    fn read(&self, _: &str, _: u64, _: &mut [u8]) -> Result<bool, Error> {
        Ok(false)
    }
}

/// One matrix of zeros.
#[derive(Debug)]
struct Without(&'static str);

impl WeightOverlay for Without {
    fn read(&self, tensor: &str, _: u64, bytes: &mut [u8]) -> Result<bool, Error> {
        if tensor != self.0 {
            return Ok(false);
        }
        bytes.fill(0);
        Ok(true)
    }
}

/// Column norms of every site, block by block on what the blocks before give with other weights.
fn block_by_block(forward: &Forward<'_>, overlay: &dyn WeightOverlay) -> Vec<Vec<f32>> {
    let mut all = Vec::new();
    let take = &mut |sites: Vec<super::SiteStatistics>, go_on: super::GoOn<'_>| {
        let norms = sites.into_iter().map(|site| {
            assert!(site.sketch.is_some());
            site.column_norms
        });
        all.extend(norms);
        go_on(overlay)
    };
    let owned = windows();
    let windows: Vec<&[u32]> = owned.iter().map(Vec::as_slice).collect();
    forward
        .statistics_on_pruned::<Error>(&windows, Some(4), &unwatched, take)
        .unwrap();
    all
}

fn windows() -> Vec<Vec<u32>> {
    let tokens = |first: u32, count| (0..count).map(|i| (first + 7 * i) % 80).collect();
    vec![tokens(1, 24), tokens(5, 24), tokens(11, 9)]
}

/// The checkpoints of `tests/forward`: every family.
fn families() -> Vec<PathBuf> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/forward");
    let folders = fs::read_dir(all)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut families: Vec<_> = folders
        .filter(|folder| folder.join("golden.safetensors").is_file())
        .collect();
    families.sort();
    assert!(families.len() >= 64, "{families:?}");
    families
}

/// Column norms of every site, of all blocks at once.
fn at_once(forward: &Forward<'_>) -> Vec<Vec<f32>> {
    let owned = windows();
    let windows: Vec<&[u32]> = owned.iter().map(Vec::as_slice).collect();
    let statistics = forward.statistics(&windows, &unwatched).unwrap();
    statistics
        .into_iter()
        .map(|site| site.column_norms)
        .collect()
}

#[test]
fn block_by_block_on_unchanged_blocks_sees_what_one_pass_sees_of_every_family_on_every_device() {
    for device in every_device() {
        for family in families() {
            let checkpoint = Checkpoint::open_path(&family).unwrap();
            let architecture = Architecture::of(&checkpoint).unwrap();
            let forward = Forward::new(&checkpoint, &architecture, &device).with_means(true);
            let (found, expected) = (block_by_block(&forward, &AsTheyAre), at_once(&forward));
            assert!(found == expected, "{family:?} on {}", device.info());
        }
    }
}

/// Whether numbers are those that were expected, but for the order in which they were summed.
fn are_close(found: &[f32], expected: &[f32]) -> bool {
    let largest = expected.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
    let pairs = found.iter().zip(expected);
    found.len() == expected.len()
        && pairs
            .into_iter()
            .all(|(a, b)| (a - b).abs() <= 2e-5 * largest)
}

#[test]
fn a_window_in_chunks_gives_the_norms_and_losses_of_the_whole_one_of_every_family_on_every_device()
{
    let owned = windows();
    let windows: Vec<&[u32]> = owned.iter().map(Vec::as_slice).collect();
    for device in every_device() {
        for family in families() {
            let checkpoint = Checkpoint::open_path(&family).unwrap();
            let architecture = Architecture::of(&checkpoint).unwrap();
            let forward = || Forward::new(&checkpoint, &architecture, &device);
            let (norms, losses) = (at_once(&forward()), forward().losses(&windows, &unwatched));
            let losses = losses.unwrap().concat();
            // Fewer tokens than convolutions look back at, and more; ends that are no multiples of the chunk.
            let sizes: &[usize] = match device.backend() {
                Backend::Cpu(_) => &[1, 7, 16],
                Backend::Gpu(_) => &[7],
            };
            for &tokens in sizes {
                let chunks = forward().in_chunks(tokens);
                let what = format!("{family:?} by {tokens} on {}", device.info());
                for (found, expected) in at_once(&chunks).iter().zip(&norms) {
                    assert!(
                        are_close(found, expected),
                        "{what}: {found:?}, {expected:?}"
                    );
                }
                let found = chunks.losses(&windows, &unwatched).unwrap().concat();
                assert!(are_close(&found, &losses), "{what}: {found:?}, {losses:?}");
            }
        }
    }
}

#[test]
fn windows_that_go_together_lose_what_each_loses_alone_to_the_bit() {
    let owned = windows();
    let windows: Vec<&[u32]> = owned.iter().map(Vec::as_slice).collect();
    for device in every_device() {
        for family in families() {
            let checkpoint = Checkpoint::open_path(&family).unwrap();
            let architecture = Architecture::of(&checkpoint).unwrap();
            let forward = Forward::new(&checkpoint, &architecture, &device);
            let together = forward.losses(&windows, &unwatched).unwrap();
            for (window, together) in windows.iter().zip(&together) {
                let alone = forward.losses(&[window], &unwatched).unwrap();
                assert_eq!(alone[0], *together, "{family:?} on {}", device.info());
            }
        }
    }
}

/// Column norms, sums and sketches of every site: what adds up over windows.
fn sums_of(forward: &Forward<'_>, windows: &[&[u32]]) -> Vec<Vec<f32>> {
    let mut all = Vec::new();
    let mut take = |site: super::SiteStatistics| -> Result<(), Error> {
        let tokens = site.tokens as f32;
        let means = site.means.unwrap().into_iter();
        all.push(site.column_norms);
        all.push(means.map(|mean| mean * tokens).collect());
        all.push(site.sketch.unwrap());
        Ok(())
    };
    forward
        .statistics_by_block(windows, Some(4), &unwatched, &mut take)
        .unwrap();
    all
}

#[test]
fn what_windows_show_together_is_the_sum_of_what_each_shows_alone() {
    let owned = windows();
    let windows: Vec<&[u32]> = owned.iter().map(Vec::as_slice).collect();
    let with_experts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/forward/mixtral");
    for device in every_device() {
        for family in [original(), with_experts.clone()] {
            let checkpoint = Checkpoint::open_path(&family).unwrap();
            let architecture = Architecture::of(&checkpoint).unwrap();
            let forward = Forward::new(&checkpoint, &architecture, &device).with_means(true);
            let together = sums_of(&forward, &windows);
            let mut alone = sums_of(&forward, &windows[..1]);
            for window in &windows[1..] {
                for (sums, own) in alone.iter_mut().zip(sums_of(&forward, &[window])) {
                    sums.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
                }
            }
            for (together, alone) in together.iter().zip(&alone) {
                let what = format!("{family:?} on {}", device.info());
                assert!(
                    are_close(together, alone),
                    "{what}: {together:?}, {alone:?}"
                );
            }
        }
    }
}

#[test]
fn what_a_block_is_pruned_to_shows_in_the_next_one() {
    let checkpoint = Checkpoint::open_path(&original()).unwrap();
    let architecture = Architecture::of(&checkpoint).unwrap();
    for device in every_device() {
        let forward = Forward::new(&checkpoint, &architecture, &device);
        let (at_once, info) = (at_once(&forward), device.info());
        let without = Without("model.layers.0.mlp.down_proj.weight");
        let changed = block_by_block(&forward, &without);
        let in_first = architecture.sites().filter(|site| site.block == 0).count();
        assert_eq!(changed[..in_first], at_once[..in_first], "{info}");
        assert_ne!(changed[in_first], at_once[in_first], "{info}");
    }
}

#[test]
fn more_tokens_than_hidden_states_are_held_of_are_refused_with_what_would_fit() {
    let check = |tokens| super::sequential::check(tokens, 4096, 256 << 20);
    check(1 << 14).unwrap();
    let refused = check((1 << 14) + 1).unwrap_err();
    assert!(matches!(refused, Error::TooManyTokens { fit: 16_384, .. }));
}

#[test]
fn a_weight_that_is_no_number_is_named_and_so_is_the_block_where_numbers_are_too_large() {
    /// One matrix of one number.
    #[derive(Debug)]
    struct Filled(&'static str, f32);

    impl WeightOverlay for Filled {
        fn read(&self, tensor: &str, _: u64, bytes: &mut [u8]) -> Result<bool, Error> {
            let halves = self.1.to_bits().to_le_bytes();
            if tensor == self.0 {
                bytes
                    .chunks_exact_mut(2)
                    .for_each(|half| half.copy_from_slice(&halves[2..]));
            }
            Ok(tensor == self.0)
        }
    }

    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tiny-llama");
    let checkpoint = Checkpoint::open_path(&example).unwrap();
    let architecture = Architecture::of(&checkpoint).unwrap();
    let owned = windows();
    let windows: Vec<&[u32]> = owned.iter().map(Vec::as_slice).collect();
    let down = "model.layers.1.mlp.down_proj.weight";
    for device in every_device() {
        let with = |number| {
            let overlay = Filled(down, number);
            let forward = Forward::new(&checkpoint, &architecture, &device);
            let forward = forward.with_overlay(Some(&overlay));
            let losses = forward.losses(&windows, &unwatched).unwrap_err();
            let statistics = forward.statistics(&windows, &unwatched).unwrap_err();
            [losses, statistics]
        };
        for number in [f32::INFINITY, f32::NAN] {
            for error in with(number) {
                assert!(
                    matches!(&error, Error::NotFiniteWeight { tensor, .. } if tensor == down),
                    "{error}"
                );
            }
        }
        // Products that have no room: what block 2 reads is the first.
        for error in with(3e38) {
            assert!(
                matches!(&error, Error::NotFinite { at } if at.starts_with("model.layers.2.")),
                "{error}"
            );
        }
    }
}
