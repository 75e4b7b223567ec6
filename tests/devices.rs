//! Every adapter of this machine against the golden masks and against the CPU, bit for bit.
//!
//! A trial's name begins with the adapter, `vulkan:llvmpipe/golden/tailed-bf16-7x333/wanda`, so that a filter picks a
//! device, a tier or a case. Without an adapter the tiers are listed as ignored, and say why; where that must not pass
//! for success, `SWIFTPRUNE_REQUIRE_ADAPTERS=vulkan,gl` makes a missing back end a failure.

mod common;
mod golden;
mod oracle;

use std::sync::Arc;

use parking_lot::Mutex;

use common::{WeightMatrix, difference, factors, mask_of, random_norms};
use libtest_mimic::{Arguments, Failed, Trial};
use swiftprune_wgpu::Dtype;
use swiftprune_wgpu::device::Mask;
use swiftprune_wgpu::device::{Device, DeviceChoice, DeviceInfo, devices};
use swiftprune_wgpu::device::{MAX_IN_FEATURES, Recipe, Sums};
use swiftprune_wgpu::internals::{SHAPES, Step, WIDE, rules};
use swiftprune_wgpu::plan::Score;
use swiftprune_wgpu::plan::Selection;
use swiftprune_wgpu::selftest;

/// A comma-separated list of back ends that must be here.
const REQUIRED: &str = "SWIFTPRUNE_REQUIRE_ADAPTERS";

fn main() -> std::process::ExitCode {
    let arguments = Arguments::from_args();
    let golden: Vec<Arc<golden::Case>> = golden::cases().into_iter().map(Arc::new).collect();
    let infos = devices();

    let mut trials = comparator_trials();
    golden_trials(
        &mut trials,
        &label(None, &[]),
        &Shared::new(common::cpu()),
        &golden,
    );
    for threads in [1, 2] {
        let cpu = Shared::new(common::cpu().with_threads(Some(threads)));
        selftest_trials(&mut trials, &format!("cpu/{threads}"), &cpu);
    }
    for info in &infos {
        let label = label(Some(info), &infos);
        let index = info.index.expect("an adapter has an index");
        match Device::open(&DeviceChoice::Index(index)) {
            Ok(device) => {
                let device = Shared::new(device);
                golden_trials(&mut trials, &label, &device, &golden);
                twin_trials(&mut trials, &label, &device, index);
                selftest_trials(&mut trials, &label, &device);
            }
            // An adapter that cannot run the passes is a failure, whoever is to blame: it is listed to users too.
            Err(error) => trials.push(Trial::test(format!("{label}/opens"), move || {
                Err(Failed::from(error.to_string()))
            })),
        }
    }
    if infos.is_empty() {
        for tier in ["golden", "twin"] {
            trials.push(
                Trial::test(
                    format!("gpu/{tier} (no adapter on this machine)"),
                    || Ok(()),
                )
                .with_kind("no adapter on this machine")
                .with_ignored_flag(true),
            );
        }
    }
    let required = std::env::var(REQUIRED).unwrap_or_default();
    for backend in required.split(',').map(str::trim).filter(|b| !b.is_empty()) {
        let backend = backend.to_owned();
        let found = infos.clone();
        trials.push(Trial::test(format!("required/{backend}"), move || {
            require(&backend, &found)
        }));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A device that one trial at a time uses: on a slow adapter, wgpu's GL back end takes a second thread that waits for
/// the first for a deadlock, and panics.
#[derive(Clone)]
struct Shared(Arc<Mutex<Device>>);

impl Shared {
    fn new(device: Device) -> Self {
        Self(Arc::new(Mutex::new(device)))
    }

    fn with<T>(&self, use_it: impl FnOnce(&Device) -> T) -> T {
        use_it(&self.0.lock())
    }
}

/// `backend:name` without the driver's additions, and the index where that is not enough to tell two apart.
fn label(info: Option<&DeviceInfo>, all: &[DeviceInfo]) -> String {
    let short = |info: &DeviceInfo| {
        let name = info.name.split(" (").next().unwrap_or_default();
        format!("{}:{}", info.backend, name.replace(['/', ' '], "-"))
    };
    let Some(info) = info else {
        return "cpu".to_owned();
    };
    let label = short(info);
    if all.iter().filter(|other| short(other) == label).count() > 1 {
        return format!("{label}#{}", info.index.unwrap_or_default());
    }
    label
}

/// Fails unless an adapter with this back end is among those found.
fn require(backend: &str, found: &[DeviceInfo]) -> Result<(), Failed> {
    if found.iter().any(|info| info.backend == backend) {
        return Ok(());
    }
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    Err(format!(
        "{REQUIRED} asks for a {backend} adapter, and there is none here; found: [{}]",
        found.join(", ")
    )
    .into())
}

// --- The comparator itself.

/// What the other trials rest on: masks that differ are told apart, and a missing back end is noticed.
fn comparator_trials() -> Vec<Trial> {
    vec![
        Trial::test("comparator/one-flipped-bit-is-caught", || {
            let pruned: Vec<bool> = (0..5 * 77).map(|i| i % 3 == 0).collect();
            let right = mask_of(5, 77, &pruned);
            same(&right, &right.clone(), "an equal mask")?;
            for word in 0..right.words.len() {
                for bit in 0..32 {
                    let mut wrong = right.clone();
                    wrong.words[word] ^= 1 << bit;
                    if difference(&right, &wrong).is_none() {
                        return Err(format!("bit {bit} of word {word} was flipped unseen").into());
                    }
                }
            }
            Ok(())
        }),
        Trial::test("comparator/a-missing-row-is-caught", || {
            let right = Mask::empty(5, 77);
            let mut short = right.clone();
            short.words.truncate(12);
            for wrong in [short, Mask::empty(4, 77), Mask::empty(5, 78)] {
                if difference(&right, &wrong).is_none() {
                    return Err("a mask of another shape was taken for the same".into());
                }
            }
            Ok(())
        }),
        Trial::test("comparator/one-changed-sum-is-caught", || {
            let right =
                common::cpu().sums(WeightMatrix::random(1, Dtype::F32, 3, 5, false).view())?;
            same_sums(&right, &right.clone(), "equal sums")?;
            for at in 0..8 {
                let mut wrong = right.clone();
                let sums = wrong.column.iter_mut().chain(&mut wrong.row);
                *sums.into_iter().nth(at).expect("3 + 5 sums") += 1;
                if same_sums(&right, &wrong, "").is_ok() {
                    return Err(format!("sum {at} was changed unseen").into());
                }
            }
            Ok(())
        }),
        Trial::test("comparator/a-missing-backend-is-caught", || {
            match require("vulkan", &[]) {
                Err(_) => Ok(()),
                Ok(()) => Err("no adapter at all passed for a Vulkan one".into()),
            }
        }),
    ]
}

/// Fails with the difference, and with what was compared.
fn same(expected: &Mask, got: &Mask, what: &str) -> Result<(), Failed> {
    match difference(expected, got) {
        None => Ok(()),
        Some(difference) => Err(format!("{what}: {difference}").into()),
    }
}

/// As [`same`], for sums.
fn same_sums(expected: &Sums, got: &Sums, what: &str) -> Result<(), Failed> {
    for (kind, expected, got) in [
        ("column", &expected.column, &got.column),
        ("row", &expected.row, &got.row),
    ] {
        if expected.len() != got.len() {
            return Err(
                format!("{what}: {} {kind} sums, not {}", got.len(), expected.len()).into(),
            );
        }
        let mut pairs = expected.iter().zip(got);
        if let Some(at) = pairs.position(|(a, b)| a != b) {
            return Err(format!(
                "{what}: the sum of {kind} {at} is {:#x}, and {:#x} is right",
                got[at], expected[at]
            )
            .into());
        }
    }
    Ok(())
}

// --- Goldens: one trial for every case and score.

/// The device's masks of every golden case, a trial a score.
fn golden_trials(
    trials: &mut Vec<Trial>,
    label: &str,
    device: &Shared,
    cases: &[Arc<golden::Case>],
) {
    for case in cases {
        let scores: std::collections::BTreeSet<String> =
            case.masks.iter().map(golden_score).collect();
        for score in scores {
            let (device, case) = (device.clone(), Arc::clone(case));
            let name = format!("{label}/golden/{}/{score}", case.name);
            trials.push(Trial::test(name, move || {
                device.with(|device| golden_case(device, &case, &score))
            }));
        }
    }
}

/// The score in a golden's name.
fn golden_score(expected: &golden::Expected) -> String {
    let mut parts = expected.name.splitn(3, '.');
    parts.nth(1).expect("CASE.SCORE.SELECTION").to_owned()
}

/// Every golden mask of one case and score.
fn golden_case(device: &Device, case: &golden::Case, score: &str) -> Result<(), Failed> {
    let dtype = common::dtype(case.dtype);
    let tensor = WeightMatrix::from_bytes(dtype, case.rows, case.cols, &case.weights);
    for expected in &case.masks {
        if golden_score(expected) != score {
            continue;
        }
        let norms = expected.with_norms.then_some(case.norms.as_slice());
        let recipe = Recipe::with_factors(
            common::selection(expected.selection),
            factors(device, &tensor, common::score(expected.score), norms)?,
        );
        let right = mask_of(case.rows, case.cols, &expected.pruned);
        let got = device.mask(tensor.view(), 0, &recipe)?;
        same(&right, &got, &expected.name)?;
    }
    Ok(())
}

// --- Twins: the adapter against the CPU, where no golden is.

/// The selections that differ in the dispatches they take.
fn selections() -> [(&'static str, Selection); 5] {
    rules().map(|rule| (rule.name, rule.selection))
}

/// More rows than a dispatch has workgroups in a dimension.
const TALL: (usize, usize) = (70_000, 8);
/// Four chunks, 64 MiB of keys.
const LARGE: (usize, usize) = (4096, 4096);
/// A little more than a chunk: both sets of buffers that a device keeps are used.
const TWO_CHUNKS: (usize, usize) = (4200, 1000);

/// The cases that `selftest` runs on users' machines, a trial each.
fn selftest_trials(trials: &mut Vec<Trial>, label: &str, device: &Shared) {
    for case in selftest::cases() {
        let device = device.clone();
        let name = format!("{label}/selftest/{case}");
        trials.push(Trial::test(name, move || {
            device.with(|device| {
                let got = case.sum(device)?;
                if case.expected() == Some(got.as_str()) {
                    return Ok(());
                }
                Err(format!("{got} and not {:?}", case.expected()).into())
            })
        }));
    }
}

/// A trial's body.
type Twin = fn(&Device, Selection, Dtype) -> Result<(), Failed>;

/// All trials of the adapter of this index against the CPU.
fn twin_trials(trials: &mut Vec<Trial>, label: &str, device: &Shared, index: usize) {
    let mut add = |name: &str, trial: Twin, selection, dtype| {
        let device = device.clone();
        trials.push(Trial::test(format!("{label}/twin/{name}"), move || {
            device.with(|device| trial(device, selection, dtype))
        }));
    };
    for (at, (name, selection)) in selections().into_iter().enumerate() {
        for dtype in Dtype::ALL {
            let of = |shape: &str| format!("{name}/{}/{shape}", dtype.name().to_lowercase());
            add(&of("small"), small, selection, dtype);
            add(&of("alone"), alone, selection, dtype);
            add(&of("wide"), wide, selection, dtype);
        }
        // Software adapters need seconds for so many workgroups: each selection with one of the dtypes.
        let dtype = Dtype::ALL[at % 3];
        add(&format!("{name}/tall"), tall, selection, dtype);
        add(&format!("{name}/parts"), parts, selection, Dtype::F16);
    }
    let [(_, ewma), (_, exact), _, (_, pattern), _] = selections();
    for dtype in Dtype::ALL {
        let name = format!("sums/{}", dtype.name().to_lowercase());
        add(&name, sums, exact, dtype);
    }
    add("ewma/large", large, ewma, Dtype::Bf16);
    add("2:4/large", large, pattern, Dtype::F32);
    add("ewma/reuse", reuse, ewma, Dtype::Bf16);
    add("exact/reuse", reuse, exact, Dtype::Bf16);
    add("2:4/reuse", reuse, pattern, Dtype::Bf16);
    for (name, selection) in selections() {
        // With a device of its own: one that has failed once fails every later call.
        let name = format!("{label}/twin/{name}/longest-row");
        trials.push(Trial::test(name, move || {
            let device = Device::open(&DeviceChoice::Index(index))?;
            longest_row(&device, selection, Dtype::Bf16)
        }));
    }
}

/// The device's mask is the CPU's, for a score without terms and for RIA with the device's own sums.
fn twin(
    device: &Device,
    tensor: &WeightMatrix,
    selection: Selection,
    seed: u64,
    scores: &[&str],
) -> Result<(), Failed> {
    let cpu = common::cpu();
    let norms = random_norms(seed, tensor.in_features);
    for name in scores {
        let score = Score::by_name(name).expect("a registered score");
        let what = format!("{} x {}, {name}", tensor.rows, tensor.in_features);
        let mut recipe =
            Recipe::with_factors(selection, factors(&cpu, tensor, score, Some(&norms))?);
        let expected = cpu.mask(tensor.view(), 0, &recipe)?;
        recipe.factors = factors(device, tensor, score, Some(&norms))?;
        same(&expected, &device.mask(tensor.view(), 0, &recipe)?, &what)?;
    }
    Ok(())
}

fn small(device: &Device, selection: Selection, dtype: Dtype) -> Result<(), Failed> {
    for (seed, (rows, in_features)) in (1..).zip(SHAPES) {
        for non_finite in [false, true] {
            let tensor = WeightMatrix::random(seed, dtype, rows, in_features, non_finite);
            twin(
                device,
                &tensor,
                selection,
                seed,
                &["swiftprune", "ria", "z-pruner"],
            )?;
        }
    }
    Ok(())
}

/// Each pass by itself leaves what its CPU twin does: every key, not only the mask that follows from it.
fn alone(device: &Device, selection: Selection, dtype: Dtype) -> Result<(), Failed> {
    let cpu = common::cpu();
    let shapes = SHAPES.into_iter().chain([(40, 1000)]);
    for (seed, (rows, in_features)) in (20..).zip(shapes) {
        let tensor = WeightMatrix::random(seed, dtype, rows, in_features, true);
        let norms = random_norms(seed, in_features);
        for name in ["swiftprune", "ria", "z-pruner"] {
            let score = Score::by_name(name).expect("a registered score");
            let recipe =
                Recipe::with_factors(selection, factors(&cpu, &tensor, score, Some(&norms))?);
            for last in [Step::Score, Step::Ewma, Step::Select] {
                let expected = cpu.alone(tensor.view(), 0, &recipe, last)?;
                let got = device.alone(tensor.view(), 0, &recipe, last)?;
                let first = expected.iter().zip(&got).position(|(a, b)| a != b);
                if expected.len() != got.len() || first.is_some() {
                    let what = format!("{rows} x {in_features}, {name}, {last:?}");
                    return Err(format!("{what}: word {first:?} of {}", expected.len()).into());
                }
            }
        }
    }
    Ok(())
}

fn wide(device: &Device, selection: Selection, dtype: Dtype) -> Result<(), Failed> {
    let tensor = WeightMatrix::random(2, dtype, WIDE.0, WIDE.1, true);
    twin(device, &tensor, selection, 2, &["wanda", "ria"])
}

fn tall(device: &Device, selection: Selection, dtype: Dtype) -> Result<(), Failed> {
    let tensor = WeightMatrix::random(3, dtype, TALL.0, TALL.1, false);
    twin(device, &tensor, selection, 3, &["ria"])
}

fn large(device: &Device, selection: Selection, dtype: Dtype) -> Result<(), Failed> {
    let tensor = WeightMatrix::random(4, dtype, LARGE.0, LARGE.1, false);
    twin(device, &tensor, selection, 4, &["swiftprune"])
}

fn longest_row(device: &Device, selection: Selection, dtype: Dtype) -> Result<(), Failed> {
    let tensor = WeightMatrix::random(5, dtype, 1, MAX_IN_FEATURES, false);
    twin(device, &tensor, selection, 5, &["swiftprune", "ria"])
}

/// Buffers are used again: what an earlier tensor left in them, all pruned or none, must not show.
fn reuse(device: &Device, selection: Selection, dtype: Dtype) -> Result<(), Failed> {
    for (poison, expected) in [(0, u32::MAX), (0x7F80, 0)] {
        let fill = |rows| -> Result<(), Failed> {
            let filled = WeightMatrix::new(dtype, rows, 1024, std::iter::repeat(poison));
            let magnitude = Score::by_name("magnitude").expect("a registered score");
            let recipe =
                Recipe::with_factors(selection, factors(device, &filled, magnitude, None)?);
            let mask = device.mask(filled.view(), 0, &recipe)?;
            if mask.words.iter().all(|&word| word == expected) {
                return Ok(());
            }
            Err(format!("{rows} rows of {poison:#06x}: not {expected:#x} throughout").into())
        };
        fill(TWO_CHUNKS.0)?;
        let seed = u64::from(poison) + 11;
        for (rows, in_features) in [(40, 1000), (3, 33), (1, 1), (41, 999)] {
            let tensor = WeightMatrix::random(seed, dtype, rows, in_features, false);
            twin(
                device,
                &tensor,
                selection,
                seed,
                &["swiftprune", "ria", "z-pruner"],
            )?;
            fill(64)?;
        }
        let tensor = WeightMatrix::random(seed, dtype, TWO_CHUNKS.0, TWO_CHUNKS.1, false);
        twin(device, &tensor, selection, seed, &["swiftprune"])?;
    }
    Ok(())
}

/// Rows are masked alike on their own and among the others, wherever the tensor is split.
fn parts(device: &Device, selection: Selection, dtype: Dtype) -> Result<(), Failed> {
    let tensor = WeightMatrix::random(6, dtype, 37, 301, true);
    let norms = random_norms(6, tensor.in_features);
    for name in ["swiftprune", "ria", "z-pruner"] {
        let score = Score::by_name(name).expect("a registered score");
        let recipe =
            Recipe::with_factors(selection, factors(device, &tensor, score, Some(&norms))?);
        let whole = common::cpu().mask(tensor.view(), 0, &recipe)?;
        for split in [1, 18, 36] {
            let mut joined = device.mask(tensor.part(0, split), 0, &recipe)?;
            let rest = device.mask(tensor.part(split, tensor.rows), split, &recipe)?;
            joined.rows += rest.rows;
            joined.words.extend(rest.words);
            same(&whole, &joined, &format!("{name}, split at row {split}"))?;
        }
    }
    Ok(())
}

/// The device's sums of |W| are the CPU's.
fn sums(device: &Device, _: Selection, dtype: Dtype) -> Result<(), Failed> {
    let cpu = common::cpu();
    for (seed, (rows, in_features)) in (7..).zip(SHAPES.into_iter().chain([WIDE, TALL])) {
        let tensor = WeightMatrix::random(seed, dtype, rows, in_features, true);
        let expected = cpu.sums(tensor.view())?;
        let got = device.sums(tensor.view())?;
        same_sums(&expected, &got, &format!("{rows} x {in_features}"))?;
    }
    // Every weight counts as the largest there is: both words of the sum carry.
    let largest = if dtype == Dtype::F32 {
        0x4380_0000
    } else {
        0x7BFF
    };
    let tensor = WeightMatrix::new(dtype, 300, 4099, std::iter::repeat(largest));
    same_sums(
        &cpu.sums(tensor.view())?,
        &device.sums(tensor.view())?,
        "weights as large as a sum counts",
    )
}
