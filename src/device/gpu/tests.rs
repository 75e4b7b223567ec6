use super::*;
use crate::device::adapter::adapters;
use crate::device::adapter::faults::Faults;
use crate::device::adapter::pace::TARGET;
use crate::device::cpu;
use crate::dtype::Dtype;
use crate::fixtures::{WeightMatrix, rules, trained_norms};
use crate::scores::SCORES;

#[test]
fn no_submission_comes_near_a_watchdog_and_the_mask_is_the_same_in_however_many() {
    let (rows, in_features) = (1024, 4096);
    let tensor = WeightMatrix::trained(5, Dtype::Bf16, rows, in_features);
    let norms = trained_norms(5, in_features);
    for adapter in adapters(true) {
        let gpu = Gpu::new(adapter.open(Faults::default()).unwrap()).unwrap();
        for rule in rules() {
            let recipe = Recipe::new(rule.selection, &SCORES[0], in_features, Some(&norms), None);
            let expected = cpu::mask_by_threads(tensor.view(), 0, &recipe, 2);
            let kind = gpu.fused(tensor.view(), 0, &recipe).kind();
            // The first ones compile, and find out how much the next may be.
            assert!(pollster::block_on(gpu.mask(tensor.view(), 0, &recipe)).unwrap() == expected);
            gpu.context.take_longest_submission();
            let piece = Piece {
                rows: tensor.view(),
                first_row: 0,
                recipe: &recipe,
            };
            let pending = gpu.submit(&[piece]).unwrap();
            let parts = pending.submissions.len();
            let masks = pollster::block_on(gpu.wait(pending)).unwrap();
            assert!(masks == [expected], "{}", rule.name);
            let longest = gpu.context.take_longest_submission();
            println!(
                "{} {}: {parts} submissions of at most {} weights, the longest {longest:?}",
                gpu.context.info,
                rule.name,
                gpu.context.submission_limit(kind)
            );
            // On a busy machine some are slower than the bound expects; a watchdog waits for 2 s.
            assert!(longest < TARGET * 8, "{}: {longest:?}", rule.name);
        }
    }
}

#[test]
fn small_pieces_share_a_submission_and_get_their_own_masks() {
    let tensors: Vec<WeightMatrix> = (0..40)
        .map(|seed| {
            WeightMatrix::trained(seed, Dtype::ALL[seed as usize % 3], 9, 64 + seed as usize)
        })
        .collect();
    for adapter in adapters(true) {
        let gpu = Gpu::new(adapter.open(Faults::default()).unwrap()).unwrap();
        for rule in rules() {
            let recipes: Vec<Recipe> = tensors
                .iter()
                .map(|t| Recipe::new(rule.selection, &SCORES[0], t.in_features, None, None))
                .collect();
            let piece = |(tensor, recipe)| {
                let tensor: &WeightMatrix = tensor;
                Piece {
                    rows: tensor.part(2, 9),
                    first_row: 2,
                    recipe,
                }
            };
            let pieces: Vec<Piece<'_>> = tensors.iter().zip(&recipes).map(piece).collect();
            // A device that compiles, or is busy, looks slow, and gets less at once; a new one does not.
            let limit = gpu
                .context
                .submission_limit(gpu.fused(pieces[0].rows, 2, &recipes[0]).kind());
            let weights =
                |piece: &Piece<'_>| piece.rows.rows() as u64 * piece.rows.in_features as u64;
            let fits = pieces.iter().map(weights).sum::<u64>() <= limit;
            let pending = gpu.submit(&pieces).unwrap();
            assert!(!fits || pending.submissions.len() == 1);
            let masks = pollster::block_on(gpu.wait(pending)).unwrap();
            for (piece, mask) in pieces.iter().zip(masks) {
                let expected = cpu::mask(piece.rows, 2, piece.recipe);
                assert!(mask == expected, "{} on {}", rule.name, gpu.context.info);
            }
        }
    }
}
