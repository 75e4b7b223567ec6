//! Sparsity shared out over decoder blocks: each rule gives the shares that an independent computation in f64 gives, the total
//! is the last weight's, and the output is the same whatever the number of threads and the device.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use swiftprune_wgpu::checkpoint::{Checkpoint, Output, OutputOptions};
use swiftprune_wgpu::device::{Device, DeviceChoice, devices};
use swiftprune_wgpu::norms::{Norms, Provenance};
use swiftprune_wgpu::plan::{
    Allocation, BlockScores, Draft, Error, Ewma, NormsSource, Options, Pattern, Plan, Selection,
};
use swiftprune_wgpu::prune::{Stop, Survivors, block_scores, prune, verify};

/// Computed by `tests/golden/make_shares.py` in f64.
const GOLDEN: &str = include_str!("../golden/shares.json");

fn golden() -> Value {
    serde_json::from_str(GOLDEN).unwrap()
}

fn numbers(list: &Value) -> Vec<f64> {
    let list = list.as_array().unwrap();
    list.iter().map(|number| number.as_f64().unwrap()).collect()
}

fn checkpoint() -> Checkpoint {
    Checkpoint::open("examples/tiny-llama").unwrap()
}

/// The norms of the script.
fn norms() -> Norms {
    let mut norms = Norms::new(Provenance::measured("made of integers".into(), Some(16)));
    for (_, tensor) in checkpoint().tensors() {
        let Some(rest) = tensor.name.strip_prefix("model.layers.") else {
            continue;
        };
        let block: usize = rest[..1].parse().unwrap();
        if let [_, in_features] = tensor.shape[..] {
            let norm = |j: usize| match j % 97 {
                96 => 4096.0,
                _ => 1.0 + (7919 * (j + 1) * (block + 1) % 1009) as f32,
            };
            norms
                .insert(&tensor.name, (0..in_features).map(norm).collect())
                .unwrap();
        }
    }
    norms
}

fn draft(selection: Selection, allocation: Allocation) -> Result<Draft, Error> {
    let mut options = Options::new(selection);
    options.allocation = allocation;
    Draft::new(checkpoint(), options, NormsSource::Read(norms().into()))
}

fn scores(draft: &Draft, threads: usize) -> Vec<BlockScores> {
    block_scores(draft, threads, &|_| (), &Stop::new()).unwrap()
}

fn plan(sparsity: f64, allocation: Allocation) -> Plan {
    let draft = draft(
        Selection::Ewma {
            sparsity,
            ewma: Ewma::default(),
        },
        allocation,
    )
    .unwrap();
    let scores = scores(&draft, 2);
    draft.allocated(&scores).unwrap().plan().unwrap()
}

fn asked(plan: &Draft) -> Vec<f64> {
    plan.blocks()
        .iter()
        .map(|block| block.asked(plan.tensors()).unwrap())
        .collect()
}

/// Weights that the plan prunes.
fn zeros(plan: &Draft) -> u64 {
    let of = plan.tensors().iter().map(|tensor| {
        let weights = tensor.shape.iter().product::<usize>() as f64;
        (tensor.asked().unwrap() * weights).round() as u64
    });
    of.sum()
}

#[test]
fn scores_of_blocks_are_those_of_the_golden_to_the_width_of_a_size() {
    let draft = draft(Selection::Exact { sparsity: 0.5 }, Allocation::OWL).unwrap();
    let found = scores(&draft, 2);
    let (outliers, medians) = (
        numbers(&golden()["outliers"]),
        numbers(&golden()["medians"]),
    );
    assert_eq!(found.len(), 4);
    for (found, (outliers, median)) in found.iter().zip(outliers.into_iter().zip(medians)) {
        // Norms are means over 16 tokens here, sums in the script.
        let median_here = 4.0 * found.median;
        assert!(
            median_here <= median && median_here > median * (1.0 - 1.0 / 1000.0),
            "{found:?} {median}"
        );
        assert!(
            (found.outliers - outliers).abs() < 2e-5,
            "{found:?} {outliers}"
        );
    }
}

#[test]
fn shares_are_those_of_the_golden() {
    for (rule, allocation, within) in [
        // A weight of a row is 0.0052 of it, and the sizes of scores are a thousandth apart.
        ("owl", Allocation::OWL, 0.006),
        ("dlp", Allocation::DLP, 0.006),
        ("atp", Allocation::ATP, 0.004),
    ] {
        for sparsity in [0.5, 0.7] {
            let expected = numbers(&golden()["shares"][format!("{rule} {sparsity}")]);
            let found = asked(&plan(sparsity, allocation.clone()));
            for (found, expected) in found.iter().zip(&expected) {
                assert!(
                    (found - expected).abs() < within,
                    "{rule} {sparsity}: {found} {expected}"
                );
            }
            // Of another rule, or of another spread, they are not.
            let other = plan(sparsity, allocation.clone().with_spread(0.05));
            let differs = asked(&other)
                .iter()
                .zip(&expected)
                .any(|(a, b)| (a - b).abs() > 2.0 * within);
            assert!(differs, "{rule} {sparsity}");
        }
    }
}

#[test]
fn the_total_is_that_of_a_uniform_request_to_the_last_weight() {
    for sparsity in [0.3, 0.5, 0.6, 0.7, 0.777] {
        let uniform = zeros(&plan(sparsity, Allocation::Uniform));
        for allocation in [Allocation::OWL, Allocation::DLP, Allocation::ATP] {
            assert_eq!(
                zeros(&plan(sparsity, allocation.clone())),
                uniform,
                "{sparsity} {allocation:?}"
            );
        }
    }
}

#[test]
fn atp_goes_up_from_block_to_block_by_one_difference() {
    let found = asked(&plan(0.6, Allocation::ATP));
    let steps: Vec<f64> = found.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(
        steps.iter().all(|step| (step - 0.2 / 3.0).abs() < 0.006),
        "{found:?}"
    );
}

#[test]
fn scores_are_the_same_with_any_number_of_threads() {
    let draft = draft(Selection::Exact { sparsity: 0.5 }, Allocation::DLP).unwrap();
    let one = scores(&draft, 1);
    for threads in [2, 3, 7] {
        assert_eq!(scores(&draft, threads), one, "{threads} threads");
    }
}

#[test]
fn every_device_writes_the_same_bytes_and_verify_accepts_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut choices = vec![DeviceChoice::Cpu];
    choices.extend(
        devices()
            .into_iter()
            .filter_map(|info| info.index)
            .map(DeviceChoice::Index),
    );
    let mut outputs = Vec::new();
    for (number, choice) in choices.iter().enumerate() {
        let device = Device::open(choice).unwrap();
        let plan = plan(0.6, Allocation::OWL);
        let path = dir.path().join(number.to_string());
        let output = Output::create(plan.checkpoint(), &path, &OutputOptions::new()).unwrap();
        let outcome = prune(&plan, &device, output, &|_| (), &Stop::new()).unwrap();
        let counted: u64 = outcome
            .counts
            .iter()
            .flatten()
            .map(|counts| counts.zeros)
            .sum();
        assert_eq!(counted, zeros(&plan));
        let pruned = Checkpoint::open(&path).unwrap();
        verify(
            &plan,
            &pruned,
            Survivors::Unchanged,
            2,
            &|_| (),
            &Stop::new(),
        )
        .unwrap();
        // A uniform plan has other shares.
        let uniform = self::plan(0.6, Allocation::Uniform);
        assert!(
            verify(
                &uniform,
                &pruned,
                Survivors::Unchanged,
                2,
                &|_| (),
                &Stop::new()
            )
            .is_err()
        );
        outputs.push(std::fs::read(path.join("model.safetensors")).unwrap());
    }
    assert!(outputs.windows(2).all(|two| two[0] == two[1]));
}

#[test]
fn shares_that_are_given_are_taken_and_each_tensor_needs_one() {
    let from = plan(0.6, Allocation::DLP);
    let share = |tensor: &swiftprune_wgpu::plan::PlannedTensor| {
        (tensor.name.clone(), tensor.asked().unwrap())
    };
    let mut table: BTreeMap<String, f64> = from.pruned().map(|(tensor, _)| share(tensor)).collect();
    let given = |table: &BTreeMap<String, f64>| {
        let mut options = Options::new(Selection::Exact { sparsity: 0.6 });
        options.allocation = Allocation::Given {
            sparsities: Arc::new(table.clone()),
        };
        Draft::new(checkpoint(), options, NormsSource::None)
    };
    assert_eq!(asked(&given(&table).unwrap()), asked(&from));
    let name = "model.layers.2.mlp.up_proj.weight";
    table.insert(name.to_owned(), 1.5);
    assert!(matches!(given(&table), Err(Error::OutOfRange { .. })));
    table.remove(name);
    assert!(matches!(given(&table), Err(Error::NotGiven { tensor }) if tensor == name));
}

#[test]
fn what_has_no_sparsity_cannot_be_shared_out_and_scores_need_norms() {
    let pattern = Selection::Pattern(Pattern::new(2, 4).unwrap());
    let lambda = Selection::Lambda {
        lambda: 0.0,
        ewma: Ewma::default(),
    };
    for selection in [pattern, lambda] {
        let refused = draft(selection, Allocation::ATP);
        assert!(
            matches!(refused, Err(Error::NothingToAllocate { .. })),
            "{selection:?}"
        );
    }
    let half = Selection::Exact { sparsity: 0.5 };
    let mut options = Options::new(half);
    options.allocation = Allocation::DLP;
    let refused = Draft::new(checkpoint(), options.clone(), NormsSource::None);
    assert!(matches!(refused, Err(Error::AllocationNeedsNorms { .. })));
    // ATP does without.
    options.allocation = Allocation::ATP;
    assert!(
        Draft::new(checkpoint(), options, NormsSource::None)
            .unwrap()
            .plan()
            .is_ok()
    );
    // A plan that was not shared out is none.
    let open = draft(half, Allocation::OWL).unwrap();
    assert!(!open.is_allocated());
    let of_few = draft(half, Allocation::OWL).unwrap().allocated(&[]);
    assert!(matches!(of_few, Err(Error::NotAllocated)));
    assert!(matches!(open.plan(), Err(Error::NotAllocated)));
    for spread in [-0.1, 0.6, f64::NAN] {
        let refused = draft(half, Allocation::ATP.with_spread(spread));
        assert!(
            matches!(refused, Err(Error::OutOfRange { what: "spread", .. })),
            "{spread}"
        );
    }
}

#[test]
fn a_spread_that_does_not_fit_is_cut_with_a_warning() {
    let cut = plan(0.9, Allocation::ATP.with_spread(0.3));
    assert!(
        cut.warnings()
            .iter()
            .any(|warning| warning.contains("atp: a spread of 0.09")),
        "{:?}",
        cut.warnings()
    );
    assert!(asked(&cut).iter().all(|share| (0.0..=1.0).contains(share)));
    assert_eq!(zeros(&cut), zeros(&plan(0.9, Allocation::Uniform)));
}
