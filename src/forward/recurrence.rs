//! A recurrence, from an engine's primitives.

use super::engine::{Engine, MixerState, Step};
use super::error::Error;
use crate::model::{Activation, InputKind, Parts, Recurrence, Ssm};

/// The input of the last layer of a recurrence, a block's mixer of this number.
pub(super) fn output<E: Engine>(
    engine: &E,
    step: &mut Step<'_, E>,
    (number, recurrence): (usize, &Recurrence<E>),
    state: &mut MixerState<E>,
    x: &E::Tensor,
) -> Result<E::Tensor, Error> {
    let times = Activation::Identity.into();
    let MixerState { tails, scan, .. } = state;
    match &recurrence.ssm {
        Ssm::ShortConvolution(ssm) => {
            let before = engine.product(step, &ssm.gate_before, x)?;
            let values = engine.product(step, &ssm.values, x)?;
            let gated = engine.activate(step, times, before, Some(values))?;
            let convolved = engine.convolve(step, &ssm.convolution, &gated, &mut tails[0])?;
            let after = engine.product(step, &ssm.gate_after, x)?;
            engine.activate(step, times, after, Some(convolved))
        }
        Ssm::SelectiveScan(ssm) => {
            let values = engine.product(step, &ssm.values, x)?;
            let values = engine.convolve(step, &ssm.convolution, &values, &mut tails[0])?;
            let values = engine.activate(step, ssm.activation.into(), values, None)?;
            step.observe(engine, InputKind::XProj(number), &values)?;
            let mut projected = Vec::with_capacity(3);
            for (index, layer) in ssm.x_proj.iter().enumerate() {
                let one = engine.product(step, layer, &values)?;
                projected.push(match &ssm.norms {
                    Some(norms) => engine.norm(step, &norms[index], &one)?,
                    None => one,
                });
            }
            step.observe(engine, InputKind::TimeStep(number), &projected[0])?;
            let time_step = engine.product(step, &ssm.time_step, &projected[0])?;
            let inputs = [&values, &time_step, &projected[1], &projected[2]];
            let y = engine.scan(step, &ssm.scan, &inputs, scan)?;
            let gate = engine.product(step, &ssm.gate, x)?;
            engine.activate(step, ssm.activation.into(), gate, Some(y))
        }
        Ssm::StateSpace(ssm) => {
            let active = ssm.activation;
            let [values, b, c] = convolved(engine, step, &ssm.convolved, active, tails, x)?;
            let time_step = engine.product(step, &ssm.time_step, x)?;
            let y = engine.scan(step, &ssm.scan, &[&values, &time_step, &b, &c], scan)?;
            let gate = engine.product(step, &ssm.gate, x)?;
            let silu = Activation::Silu.into();
            match &ssm.norm {
                None => engine.activate(step, silu, gate, Some(y)),
                Some(norm) if norm.before_gate => {
                    let y = engine.norm_parts(step, &norm.norm, y)?;
                    engine.activate(step, silu, gate, Some(y))
                }
                Some(norm) => {
                    let gated = engine.activate(step, silu, gate, Some(y))?;
                    engine.norm_parts(step, &norm.norm, gated)
                }
            }
        }
        Ssm::DeltaNet(ssm) => {
            let active = ssm.activation;
            let [queries, keys, values] =
                convolved(engine, step, &ssm.convolved, active, tails, x)?;
            let time_step = engine.product(step, &ssm.time_step, x)?;
            let beta = engine.product(step, &ssm.beta, x)?;
            let inputs = [&queries, &keys, &values, &time_step, &beta];
            let y = engine.scan(step, &ssm.scan, &inputs, scan)?;
            let y = engine.norm_parts(step, &ssm.norm, y)?;
            let gate = engine.product(step, &ssm.gate, x)?;
            engine.activate(step, active.into(), gate, Some(y))
        }
    }
}

/// The products of three layers, each convolved.
fn convolved<E: Engine>(
    engine: &E,
    step: &mut Step<'_, E>,
    layers: &[(<E as Parts>::Linear, <E as Parts>::Convolution); 3],
    activation: Activation,
    tails: &mut [E::Tail; 3],
    x: &E::Tensor,
) -> Result<[E::Tensor; 3], Error> {
    let mut next = |number: usize| {
        let (layer, convolution) = &layers[number];
        let product = engine.product(step, layer, x)?;
        let y = engine.convolve(step, convolution, &product, &mut tails[number])?;
        engine.activate(step, activation.into(), y, None)
    };
    Ok([next(0)?, next(1)?, next(2)?])
}
