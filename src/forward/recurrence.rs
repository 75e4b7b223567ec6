//! A recurrence, from an engine's primitives.

use super::engine::{Convolved, Engine, LoadedSsm};
use super::error::Error;
use crate::model::{Activation, Convolution, Ssm};

/// The input of the last layer of a recurrence.
pub(super) fn output<E: Engine>(
    engine: &E,
    sequence: &mut E::Sequence,
    ssm: &LoadedSsm<E>,
    x: &E::Tensor,
) -> Result<E::Tensor, Error> {
    let times = Activation::Identity.into();
    match ssm {
        Ssm::ShortConvolution(ssm) => {
            let before = engine.product(sequence, &ssm.gate_before, x)?;
            let values = engine.product(sequence, &ssm.values, x)?;
            let gated = engine.activate(sequence, times, before, Some(values))?;
            let kernel = part(&ssm.convolution, 0, None);
            let convolved = engine.convolve(sequence, &kernel, &gated)?;
            let after = engine.product(sequence, &ssm.gate_after, x)?;
            engine.activate(sequence, times, after, Some(convolved))
        }
        Ssm::SelectiveScan(ssm) => {
            let values = engine.product(sequence, &ssm.values, x)?;
            let kernel = part(&ssm.convolution, 0, None);
            let values = engine.convolve(sequence, &kernel, &values)?;
            let values = engine.activate(sequence, ssm.activation.into(), values, None)?;
            engine.observe(sequence, &values)?;
            let mut projected = Vec::with_capacity(3);
            for (index, layer) in ssm.x_proj.iter().enumerate() {
                let one = engine.product(sequence, layer, &values)?;
                projected.push(match &ssm.norms {
                    Some(norms) => engine.norm(sequence, &norms[index], &one)?,
                    None => one,
                });
            }
            engine.observe(sequence, &projected[0])?;
            let time_step = engine.product(sequence, &ssm.time_step, &projected[0])?;
            let inputs = [&values, &time_step, &projected[1], &projected[2]];
            let y = engine.scan(sequence, &ssm.scan(), &inputs)?;
            let gate = engine.product(sequence, &ssm.gate, x)?;
            engine.activate(sequence, ssm.activation.into(), gate, Some(y))
        }
        Ssm::StateSpace(ssm) => {
            let scan = ssm.scan();
            let inputs = scan.sizes.inputs();
            let sizes = [inputs[0], inputs[2], inputs[3]];
            let active = ssm.activation;
            let [values, b, c] = convolved(
                engine,
                sequence,
                (&ssm.convolved, &ssm.convolution, active),
                sizes,
                x,
            )?;
            let time_step = engine.product(sequence, &ssm.time_step, x)?;
            let y = engine.scan(sequence, &scan, &[&values, &time_step, &b, &c])?;
            let gate = engine.product(sequence, &ssm.gate, x)?;
            let silu = Activation::Silu.into();
            match &ssm.norm {
                None => engine.activate(sequence, silu, gate, Some(y)),
                Some(norm) if norm.before_gate => {
                    let y = engine.norm_parts(sequence, &norm.norm, y)?;
                    engine.activate(sequence, silu, gate, Some(y))
                }
                Some(norm) => {
                    let gated = engine.activate(sequence, silu, gate, Some(y))?;
                    engine.norm_parts(sequence, &norm.norm, gated)
                }
            }
        }
        Ssm::DeltaNet(ssm) => {
            let scan = ssm.scan();
            let inputs = scan.sizes.inputs();
            let sizes = [inputs[0], inputs[1], inputs[2]];
            let active = ssm.activation;
            let [queries, keys, values] = convolved(
                engine,
                sequence,
                (&ssm.convolved, &ssm.convolution, active),
                sizes,
                x,
            )?;
            let time_step = engine.product(sequence, &ssm.time_step, x)?;
            let beta = engine.product(sequence, &ssm.beta, x)?;
            let inputs = [&queries, &keys, &values, &time_step, &beta];
            let y = engine.scan(sequence, &scan, &inputs)?;
            let y = engine.norm_parts(sequence, &ssm.norm, y)?;
            let gate = engine.product(sequence, &ssm.gate, x)?;
            engine.activate(sequence, active.into(), gate, Some(y))
        }
    }
}

/// The products of three layers, of so many features each, over which one convolution goes.
fn convolved<E: Engine>(
    engine: &E,
    sequence: &mut E::Sequence,
    (layers, convolution, activation): (&[E::Matrix; 3], &Convolution<Vec<f32>>, Activation),
    sizes: [usize; 3],
    x: &E::Tensor,
) -> Result<[E::Tensor; 3], Error> {
    let mut first = 0;
    let mut next = |layer, channels| {
        let product = engine.product(sequence, layer, x)?;
        let kernel = part(convolution, first, Some(channels));
        first += channels;
        let y = engine.convolve(sequence, &kernel, &product)?;
        engine.activate(sequence, activation.into(), y, None)
    };
    let [a, b, c] = layers;
    Ok([next(a, sizes[0])?, next(b, sizes[1])?, next(c, sizes[2])?])
}

/// The channels from number `first` on, all or so many, of a convolution.
fn part(of: &Convolution<Vec<f32>>, first: usize, channels: Option<usize>) -> Convolved<'_> {
    let channels = channels.unwrap_or(of.weight.len() / of.width - first);
    let end = first + channels;
    Convolved {
        weight: &of.weight[first * of.width..end * of.width],
        bias: of.bias.as_ref().map(|bias| &bias[first..end]),
        width: of.width,
    }
}
