//! Properties of the CPU device on random tensors: it is what the oracle of `docs/algorithm.md` says, and holds what the
//! page promises whatever the weights are. The adapters are held against the CPU in `devices.rs`.

use crate::common::{self, WeightMatrix, cpu, difference, factors, mask_of, random_norms};
use crate::oracle;
use proptest::prelude::*;
use swiftprune_wgpu::Dtype;
use swiftprune_wgpu::device::Device;
use swiftprune_wgpu::device::Mask;
use swiftprune_wgpu::device::Recipe;
use swiftprune_wgpu::plan::{NormsUse, SCORES, Score};

/// A random tensor, its norms, a score with or without them and a selection.
#[derive(Clone, Debug)]
struct Case {
    seed: u64,
    dtype: Dtype,
    rows: usize,
    in_features: usize,
    non_finite: bool,
    score: oracle::Score,
    with_norms: bool,
    selection: oracle::Selection,
}

impl Case {
    fn tensor(&self) -> WeightMatrix {
        WeightMatrix::random(
            self.seed,
            self.dtype,
            self.rows,
            self.in_features,
            self.non_finite,
        )
    }

    fn score(&self) -> &'static Score {
        common::score(self.score)
    }

    fn norms(&self) -> Option<Vec<f32>> {
        self.with_norms
            .then(|| random_norms(self.seed, self.in_features))
    }

    fn recipe(&self, device: &Device, tensor: &WeightMatrix) -> Recipe {
        Recipe::with_factors(
            common::selection(self.selection),
            factors(device, tensor, self.score(), self.norms().as_deref())
                .expect("the CPU does not fail"),
        )
    }

    fn mask(&self, device: &Device, tensor: &WeightMatrix) -> Mask {
        let recipe = self.recipe(device, tensor);
        mask(device, tensor, 0, tensor.rows, &recipe)
    }
}

/// The mask of some rows of the tensor.
fn mask(device: &Device, tensor: &WeightMatrix, first: usize, end: usize, recipe: &Recipe) -> Mask {
    device
        .mask(tensor.part(first, end), first, recipe)
        .expect("the CPU does not fail")
}

/// Any case.
fn cases() -> impl Strategy<Value = Case> {
    let ewma = || {
        let block = (4..=12_u32).prop_map(|shift| 1_usize << shift);
        (prop_oneof![3 => Just(128), 2 => block], 0..=7_u32)
    };
    let share = || prop_oneof![Just(0.0), Just(0.5), Just(1.0), 0.0..=1.0_f64];
    let selection = prop_oneof![
        (share(), ewma()).prop_map(|(p, (block, gain_shift))| oracle::Selection::Sparsity {
            p,
            block,
            gain_shift
        }),
        share().prop_map(|p| oracle::Selection::Exact { p }),
        (-15.9..15.9_f64, -2.0..2.0_f64, any::<bool>(), ewma()).prop_map(
            |(far, near, is_near, (block, gain_shift))| oracle::Selection::Lambda {
                x: if is_near { near } else { far },
                block,
                gain_shift
            }
        ),
        (2..=32_usize)
            .prop_flat_map(|m| (1..m, Just(m)))
            .prop_map(|(n, m)| oracle::Selection::NOfM { n, m }),
        prop_oneof![Just((2, 4)), Just((4, 8)), Just((1, 4))]
            .prop_map(|(n, m)| oracle::Selection::NOfM { n, m }),
    ];
    let score = prop::sample::select(vec![
        (oracle::Score::Swiftprune, true),
        (oracle::Score::SwiftpruneWeight, true),
        (oracle::Score::Wanda, true),
        (oracle::Score::Ria, true),
        (oracle::Score::Ria, false),
        (oracle::Score::Magnitude, false),
        (oracle::Score::Magnitude, true),
        (oracle::Score::Stade, true),
        (oracle::Score::Nowag, true),
        (oracle::Score::Nowag, false),
        (oracle::Score::ZPruner, true),
        (oracle::Score::ZPruner, false),
    ]);
    let dtype = prop::sample::select(Dtype::ALL.to_vec());
    let shape = prop_oneof![4 => (1..6_usize, 1..400_usize), 1 => (1..3_usize, 400..3000_usize)];
    (any::<u64>(), dtype, shape, any::<bool>(), score, selection).prop_map(
        |(seed, dtype, (rows, in_features), non_finite, (score, with_norms), selection)| Case {
            seed,
            dtype,
            rows,
            in_features,
            non_finite,
            score,
            with_norms,
            selection,
        },
    )
}

/// Of a weight, as the counts below need it.
struct Row<'a> {
    magnitudes: &'a [f32],
    pruned: Vec<bool>,
}

impl Row<'_> {
    fn count(&self, which: impl Fn(f32, bool) -> bool) -> usize {
        let weights = self.magnitudes.iter().zip(&self.pruned);
        weights.filter(|&(&w, &goes)| which(w, goes)).count()
    }
}

/// The rows of a tensor with their masks.
fn rows<'a>(magnitudes: &'a [f32], mask: &Mask) -> Vec<Row<'a>> {
    let rows = magnitudes.chunks(mask.in_features).enumerate();
    rows.map(|(row, magnitudes)| Row {
        magnitudes,
        pruned: (0..mask.in_features).map(|j| mask.prunes(row, j)).collect(),
    })
    .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn the_mask_is_the_one_the_oracle_computes(case in cases()) {
        let tensor = case.tensor();
        let pruned = oracle::mask(
            tensor.bytes(),
            common::oracle_dtype(case.dtype),
            case.rows,
            case.in_features,
            case.score,
            case.norms().as_deref(),
            case.selection,
        );
        let expected = mask_of(case.rows, case.in_features, &pruned);
        prop_assert_eq!(difference(&expected, &case.mask(&cpu(), &tensor)), None);
    }

    #[test]
    fn exactly_k_weights_of_every_row_go(case in cases()) {
        let (oracle::Selection::Sparsity { p, .. } | oracle::Selection::Exact { p }) = case.selection else {
            return Ok(());
        };
        let tensor = case.tensor();
        let k = (p * case.in_features as f64 + 0.5).floor() as usize;
        for row in rows(&tensor.magnitudes(), &case.mask(&cpu(), &tensor)) {
            let zeros = row.count(|w, _| w == 0.0);
            let finite = row.count(|w, _| w.is_finite());
            prop_assert_eq!(row.count(|_, goes| goes), k.max(zeros).min(finite));
        }
    }

    #[test]
    fn every_group_keeps_n_of_m(case in cases()) {
        let oracle::Selection::NOfM { n, m } = case.selection else {
            return Ok(());
        };
        let tensor = case.tensor();
        for row in rows(&tensor.magnitudes(), &case.mask(&cpu(), &tensor)) {
            for (magnitudes, pruned) in row.magnitudes.chunks(m).zip(row.pruned.chunks(m)) {
                let group = Row { magnitudes, pruned: pruned.to_vec() };
                let nonzero = group.count(|w, _| w != 0.0);
                let non_finite = group.count(|w, _| !w.is_finite());
                prop_assert_eq!(group.count(|_, goes| !goes), n.min(nonzero).max(non_finite));
            }
        }
    }

    #[test]
    fn zeros_always_go_and_non_finite_weights_never(case in cases()) {
        let tensor = case.tensor();
        for row in rows(&tensor.magnitudes(), &case.mask(&cpu(), &tensor)) {
            prop_assert_eq!(row.count(|w, goes| w == 0.0 && !goes), 0);
            prop_assert_eq!(row.count(|w, goes| !w.is_finite() && goes), 0);
        }
    }

    #[test]
    fn pruning_what_is_pruned_changes_nothing(case in cases()) {
        let mut tensor = case.tensor();
        let first = case.mask(&cpu(), &tensor);
        first.apply(case.dtype, tensor.bytes_mut(), false);
        let pruned = tensor.clone();
        // With the sums, where the score has any, of the weights that are left.
        let second = case.mask(&cpu(), &tensor);
        if matches!(case.selection, oracle::Selection::Lambda { .. }) {
            // The open loop measures what is left against itself, and may go on; what is gone stays gone.
            let kept = first.words.iter().zip(&second.words).all(|(a, b)| a & !b == 0);
            prop_assert!(kept);
        } else {
            prop_assert_eq!(difference(&first, &second), None);
            second.apply(case.dtype, tensor.bytes_mut(), false);
            prop_assert!(tensor.bytes() == pruned.bytes());
        }
    }

    #[test]
    fn rows_are_masked_alike_wherever_the_tensor_is_split(case in cases(), at in 0.0..1.0_f64) {
        let (device, tensor) = (cpu(), case.tensor());
        let recipe = case.recipe(&device, &tensor);
        let whole = mask(&device, &tensor, 0, case.rows, &recipe);
        let split = (at * (case.rows + 1) as f64) as usize;
        let mut joined = mask(&device, &tensor, 0, split, &recipe);
        let rest = mask(&device, &tensor, split, case.rows, &recipe);
        joined.rows += rest.rows;
        joined.words.extend(rest.words);
        prop_assert_eq!(difference(&whole, &joined), None);
    }

    #[test]
    fn sums_are_exact_and_add_up_over_tiles(case in cases(), at in 0.0..1.0_f64) {
        let (device, tensor) = (cpu(), case.tensor());
        let sums = device.sums(tensor.view()).expect("the CPU does not fail");
        let mut column = vec![0_u128; case.in_features];
        let mut row = vec![0_u128; case.rows];
        for (index, &w) in tensor.magnitudes().iter().enumerate() {
            if w.is_finite() {
                let fixed = (f64::from(w).min(256.0) * 2_f64.powi(36)).floor() as u128;
                column[index % case.in_features] += fixed;
                row[index / case.in_features] += fixed;
            }
        }
        let widen = |sums: &[u64]| sums.iter().map(|&sum| u128::from(sum)).collect::<Vec<_>>();
        prop_assert_eq!(widen(&sums.column), column);
        prop_assert_eq!(widen(&sums.row), row);

        let split = (at * (case.rows + 1) as f64) as usize;
        let first = device.sums(tensor.part(0, split)).expect("the CPU does not fail");
        let rest = device.sums(tensor.part(split, case.rows)).expect("the CPU does not fail");
        let added: Vec<u64> = first.column.iter().zip(&rest.column).map(|(a, b)| a + b).collect();
        prop_assert_eq!(added, sums.column);
        prop_assert_eq!([first.row, rest.row].concat(), sums.row);
    }

    #[test]
    fn one_flipped_bit_is_a_difference(case in cases(), at in any::<prop::sample::Index>()) {
        let right = case.mask(&cpu(), &case.tensor());
        let mut wrong = right.clone();
        let bit = at.index(right.words.len() * 32);
        wrong.words[bit / 32] ^= 1 << (bit % 32);
        prop_assert!(difference(&right, &wrong).is_some());
    }
}

#[test]
fn threads_that_share_a_device_do_not_disturb_each_other() {
    let device = cpu();
    let case = Case {
        seed: 1,
        dtype: Dtype::Bf16,
        rows: 64,
        in_features: 1000,
        non_finite: true,
        score: oracle::Score::Ria,
        with_norms: true,
        selection: oracle::Selection::Sparsity {
            p: 0.5,
            block: 128,
            gain_shift: 3,
        },
    };
    let tensor = case.tensor();
    let recipe = case.recipe(&device, &tensor);
    let whole = mask(&device, &tensor, 0, case.rows, &recipe);
    std::thread::scope(|scope| {
        let (device, tensor, recipe, whole) = (&device, &tensor, &recipe, &whole);
        for thread in 0..8 {
            scope.spawn(move || {
                let rows = thread * 8..thread * 8 + 8;
                let part = mask(device, tensor, rows.start, rows.end, recipe);
                let words = Mask::words_per_row(whole.in_features);
                let expected = &whole.words[rows.start * words..rows.end * words];
                assert_eq!(part.words, expected, "{rows:?}");
            });
        }
    });
}

#[test]
fn the_cases_have_every_score_of_the_registry() {
    let of_the_oracle = [
        oracle::Score::Swiftprune,
        oracle::Score::SwiftpruneWeight,
        oracle::Score::Wanda,
        oracle::Score::Ria,
        oracle::Score::Magnitude,
        oracle::Score::Stade,
        oracle::Score::Nowag,
        oracle::Score::ZPruner,
    ];
    let names: Vec<&str> = of_the_oracle
        .iter()
        .map(|&score| common::score(score).name)
        .collect();
    let registered: Vec<&str> = SCORES.iter().map(|score| score.name).collect();
    assert_eq!(names, registered);
    let optional = SCORES
        .iter()
        .find(|score| score.norms == NormsUse::Optional);
    assert_eq!(optional.map(|score| score.name), Some("ria"));
}
