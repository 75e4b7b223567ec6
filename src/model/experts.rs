//! A mixture of experts as data: which of many small feed-forward parts each token goes through, and with which weights.
//!
//! ```text
//! s = score(router(x));  e, w = the `chosen` largest of s, and how large they are;  y = sum_i w_i expert_e_i(x) + shared(x)
//! ```
//!
//! The logits come from a device; the choice is the host's ([`Router::route`]), so that it is made in one way everywhere.

use super::mlp::Mlp;
use super::parts::{Loader, Named, Parts};

/// Experts, and the router that assignments the tokens out to them.
#[derive(Clone, Debug)]
pub(crate) struct Experts<P: Parts = Named> {
    pub(crate) router: Router<P>,
    pub(crate) experts: Vec<Mlp<P>>,
    /// What every token goes through beside its experts.
    pub(crate) shared: Option<SharedExpert<P>>,
    /// Whether an expert's input is multiplied by its weight, and not its output.
    pub(crate) weighs_input: bool,
}

/// Experts for every token, stored as one.
#[derive(Clone, Debug)]
pub(crate) struct SharedExpert<P: Parts = Named> {
    pub(crate) mlp: Mlp<P>,
    /// From a token to one number, whose sigmoid the output is multiplied by.
    pub(crate) gate: Option<P::Linear>,
}

/// What becomes of the logits of a router.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scores {
    /// `exp(l) / sum exp(l)` over all experts.
    Softmax,
    /// `1 / (1 + exp(-l))`, each for itself.
    Sigmoid,
    /// The best, then the best of those that are left (SparseMixer, arXiv 2409.12136): each weighs `exp(l) / sum exp(l)` over
    /// those that are left and not worse by more than this part of the larger of their size and the best logit.
    OneByOne { tolerance: f64 },
}

/// Experts in groups of the same size, of which only some are open to a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExpertGroups {
    pub(crate) count: usize,
    /// How many are open.
    pub(crate) chosen: usize,
    /// How many of its best scores a group is judged by: their sum counts.
    pub(crate) judged_by: usize,
}

/// How experts are chosen for a token, and weighed.
#[derive(Clone, Debug)]
pub(crate) struct Router<P: Parts = Named> {
    /// From a token to a logit an expert.
    pub(crate) layer: P::Linear,
    pub(crate) scores: Scores,
    /// What is added to the scores for the choice, and not to the weights.
    pub(crate) correction: Option<P::Numbers>,
    pub(crate) groups: Option<ExpertGroups>,
    /// Experts a token.
    pub(crate) chosen: usize,
    /// Whether the weights of a token are divided by their sum.
    pub(crate) normalised: bool,
    /// What is added to that sum.
    pub(crate) sum_offset: f64,
    /// What the weights are multiplied by.
    pub(crate) scale: f64,
}

impl Experts {
    /// The same with other parts.
    pub(super) fn load<L: Loader>(&self, loader: &mut L) -> Result<Experts<L::Parts>, L::Error> {
        let router = &self.router;
        let layer = loader.linear(&router.layer)?;
        let correction = router.correction.as_ref();
        let correction = correction.map(|by| loader.numbers(by)).transpose()?;
        let shared = match &self.shared {
            None => None,
            Some(shared) => {
                let gate = shared.gate.as_ref();
                Some(SharedExpert {
                    mlp: shared.mlp.load(loader)?,
                    gate: gate.map(|gate| loader.linear(gate)).transpose()?,
                })
            }
        };
        let experts = self.experts.iter().map(|mlp| mlp.load(loader));
        Ok(Experts {
            experts: experts.collect::<Result<_, _>>()?,
            router: Router {
                layer,
                scores: router.scores,
                correction,
                groups: router.groups,
                chosen: router.chosen,
                normalised: router.normalised,
                sum_offset: router.sum_offset,
                scale: router.scale,
            },
            shared,
            weighs_input: self.weighs_input,
        })
    }
}

/// What goes to one expert: tokens, in order, and their weights.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ExpertAssignment {
    pub(crate) tokens: Vec<u32>,
    pub(crate) weights: Vec<f32>,
}

impl ExpertAssignment {
    /// The same tokens, each with the weight 1.
    pub(crate) fn unweighted(&self) -> Self {
        Self {
            tokens: self.tokens.clone(),
            weights: vec![1.0; self.tokens.len()],
        }
    }

    /// The same with every weight times `scale`.
    pub(crate) fn scaled(mut self, scale: f32) -> Self {
        self.weights.iter_mut().for_each(|weight| *weight *= scale);
        self
    }

    /// Every token, in order, each weighed by the sigmoid of its number.
    pub(crate) fn of_every_token(logits: &[f32]) -> Self {
        let weight = |&logit: &f32| (1.0 / (1.0 + f64::from(-logit).exp())) as f32;
        Self {
            tokens: (0..logits.len() as u32).collect(),
            weights: logits.iter().map(weight).collect(),
        }
    }
}

impl<P: Parts<Numbers = Vec<f32>>> Router<P> {
    /// ExpertAssignments tokens out to so many experts by their logits, `[tokens, experts]`. Of equal scores the first wins; one that
    /// is no number is the smallest.
    pub(crate) fn route(&self, logits: &[f32], experts: usize) -> Vec<ExpertAssignment> {
        let mut assignments = vec![ExpertAssignment::default(); experts];
        for (token, logits) in logits.chunks_exact(experts).enumerate() {
            if let Scores::OneByOne { tolerance } = self.scores {
                for (expert, weight) in one_by_one(logits, self.chosen, tolerance) {
                    assignments[expert].tokens.push(token as u32);
                    let weight = (weight * self.scale) as f32;
                    assignments[expert].weights.push(weight);
                }
                continue;
            }
            let scores = self.scores(logits);
            let corrected: Vec<f64> = match &self.correction {
                Some(by) => scores
                    .iter()
                    .zip(by)
                    .map(|(s, &c)| s + f64::from(c))
                    .collect(),
                None => scores.clone(),
            };
            let open = self.open_experts(&corrected);
            let chosen = largest(open, &corrected, self.chosen);
            let sum: f64 = chosen.iter().map(|&expert| scores[expert]).sum();
            let factor = if self.normalised {
                self.scale / (sum + self.sum_offset)
            } else {
                self.scale
            };
            for expert in chosen {
                assignments[expert].tokens.push(token as u32);
                assignments[expert]
                    .weights
                    .push((scores[expert] * factor) as f32);
            }
        }
        assignments
    }

    fn scores(&self, logits: &[f32]) -> Vec<f64> {
        let logits = logits.iter().map(|&logit| f64::from(logit));
        match self.scores {
            Scores::Sigmoid => logits.map(|logit| 1.0 / (1.0 + (-logit).exp())).collect(),
            Scores::Softmax | Scores::OneByOne { .. } => {
                let most = logits.clone().fold(f64::NEG_INFINITY, f64::max);
                let exps: Vec<f64> = logits.map(|logit| (logit - most).exp()).collect();
                let sum: f64 = exps.iter().sum();
                exps.into_iter().map(|exp| exp / sum).collect()
            }
        }
    }

    /// The experts of the groups that are open, in order.
    fn open_experts(&self, scores: &[f64]) -> Vec<usize> {
        let Some(groups) = self.groups else {
            return (0..scores.len()).collect();
        };
        let size = scores.len() / groups.count;
        let judge = |group: &[f64]| -> f64 {
            let best = largest((0..size).collect(), group, groups.judged_by);
            best.into_iter().map(|expert| group[expert]).sum()
        };
        let judged: Vec<f64> = scores.chunks_exact(size).map(judge).collect();
        let mut open = largest((0..groups.count).collect(), &judged, groups.chosen);
        open.sort_unstable();
        open.into_iter()
            .flat_map(|group| group * size..(group + 1) * size)
            .collect()
    }
}

/// Experts and their weights by [`Scores::OneByOne`].
fn one_by_one(logits: &[f32], chosen: usize, tolerance: f64) -> Vec<(usize, f64)> {
    let logits: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
    let mut left: Vec<usize> = (0..logits.len()).collect();
    let mut taken = Vec::with_capacity(chosen);
    for _ in 0..chosen {
        let best = largest(left.clone(), &logits, 1)[0];
        let most = logits[best];
        let is_near = |logit: f64| (most - logit) / logit.abs().max(most) <= tolerance;
        let near = left.iter().map(|&expert| logits[expert]);
        let sum: f64 = near
            .filter(|&logit| is_near(logit))
            .map(|logit| (logit - most).exp())
            .sum();
        taken.push((best, 1.0 / sum));
        left.retain(|&expert| expert != best);
    }
    taken
}

/// Those `count` of some candidates that have the largest scores, the largest first.
fn largest(mut candidates: Vec<usize>, scores: &[f64], count: usize) -> Vec<usize> {
    let score = |candidate: usize| Some(scores[candidate]).filter(|score| !score.is_nan());
    // The sort is stable.
    candidates.sort_by(|&a, &b| score(b).partial_cmp(&score(a)).expect("no NaN is left"));
    candidates.truncate(count);
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A router whose layer does not matter.
    enum Host {}

    impl Parts for Host {
        type Linear = ();
        type Norm = ();
        type Vector = ();
        type Numbers = Vec<f32>;
        type Convolution = ();
        type Scan = ();
    }

    fn router(scores: Scores) -> Router<Host> {
        Router {
            layer: (),
            scores,
            correction: None,
            groups: None,
            chosen: 2,
            normalised: false,
            sum_offset: 0.0,
            scale: 1.0,
        }
    }

    fn weights(router: &Router<Host>, logits: &[f32]) -> Vec<(usize, f32)> {
        let assignments = router.route(logits, logits.len()).into_iter().enumerate();
        let chosen = assignments.filter(|(_, assignment)| !assignment.tokens.is_empty());
        chosen
            .map(|(expert, assignment)| (expert, assignment.weights[0]))
            .collect()
    }

    #[test]
    fn the_best_two_are_chosen_and_weigh_as_much_as_they_scored() {
        let logits = [0.0, (2.0_f32).ln(), 0.0, (4.0_f32).ln()];
        assert_eq!(
            weights(&router(Scores::Softmax), &logits),
            [(1, 0.25), (3, 0.5)]
        );
        let normalised = Router {
            normalised: true,
            scale: 3.0,
            ..router(Scores::Softmax)
        };
        assert_eq!(weights(&normalised, &logits), [(1, 1.0), (3, 2.0)]);
        // Of equals the first.
        assert_eq!(
            weights(&router(Scores::Sigmoid), &[0.0; 3]),
            [(0, 0.5), (1, 0.5)]
        );
    }

    #[test]
    fn a_correction_chooses_and_does_not_weigh() {
        let corrected = Router {
            correction: Some(vec![0.0, 0.0, 5.0]),
            ..router(Scores::Sigmoid)
        };
        let chosen = weights(&corrected, &[0.0, -1.0, 0.0]);
        assert_eq!(chosen, [(0, 0.5), (2, 0.5)]);
    }

    #[test]
    fn a_group_that_is_closed_keeps_its_best_expert() {
        let groups = |judged_by| Router {
            groups: Some(ExpertGroups {
                count: 2,
                chosen: 1,
                judged_by,
            }),
            ..router(Scores::Sigmoid)
        };
        let logits = [3.0, -9.0, 2.0, 2.5];
        let experts = |judged_by| -> Vec<usize> {
            let chosen = weights(&groups(judged_by), &logits);
            chosen.into_iter().map(|(expert, _)| expert).collect()
        };
        assert_eq!(experts(1), [0, 1]);
        assert_eq!(experts(2), [2, 3]);
    }

    #[test]
    fn experts_one_by_one_weigh_among_those_that_are_nearly_as_good() {
        let of = |tolerance| router(Scores::OneByOne { tolerance });
        // The second is half as good as the first, the third nearly as good as the second.
        let logits = [2.0, 1.0, 0.99, -3.0];
        assert_eq!(weights(&of(0.0), &logits), [(0, 1.0), (1, 1.0)]);
        let near = weights(&of(0.02), &logits);
        assert_eq!(near[0], (0, 1.0));
        let expected = 1.0 / (1.0 + (-0.01_f64).exp());
        assert!((f64::from(near[1].1) - expected).abs() < 1e-6, "{near:?}");
    }

    #[test]
    fn logits_that_are_no_numbers_do_not_panic() {
        for scores in [Scores::Softmax, Scores::OneByOne { tolerance: 0.02 }] {
            let assignments = router(scores).route(&[f32::NAN, 1.0, f32::INFINITY], 3);
            assert_eq!(
                assignments
                    .iter()
                    .map(|assignment| assignment.tokens.len())
                    .sum::<usize>(),
                2
            );
        }
    }
}
