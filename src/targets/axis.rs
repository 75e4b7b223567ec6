//! Which axis of a stored weight is its input.
//!
//! Pruning compares the weights of one output neuron, so it must know which axis the inputs run along, and a wrong guess
//! does not fail: it ruins the model silently. `nn.Linear` is `[out, in]`, but GPT-2's `Conv1D` is `[in, out]` under
//! names that other architectures give an `nn.Linear`, and fused experts come in both orders. So there are three
//! sources, the most reliable first:
//!
//! 1. **The shape.** One side of each such layer has `hidden_size` features. If just one axis is that long, that is proof.
//! 2. **The other tensors of the checkpoint** that are stored alike: a square `attn.c_proj` is stored like the
//!    `attn.c_attn` beside it.
//! 3. **The architecture**, from the table in `src/names/rules.rs`.
//!
//! If none of them tells, the weight is left alone, with [`Reason::AxisUnknown`](super::reason::Reason::AxisUnknown).

use super::model::Model;
use crate::names::rules::{Group, Hidden, Layout, Stored, convention};

/// What the tensors of one checkpoint have shown so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Witnesses {
    conv1d: Seen,
    experts: Seen,
}

/// The layouts that shapes have proven.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    out_in: bool,
    in_out: bool,
}

impl Witnesses {
    /// Takes note of one tensor's shape.
    pub(super) fn hear(&mut self, stored: Stored, shape: &[usize], model: &Model) {
        let Some((group, hidden)) = stored.group() else {
            return;
        };
        let seen = match group {
            Group::Conv1d => &mut self.conv1d,
            Group::Experts => &mut self.experts,
        };
        match proven(group, hidden, shape, model) {
            Some(Layout::OutIn) => seen.out_in = true,
            Some(Layout::InOut) => seen.in_out = true,
            None => {}
        }
    }

    /// The layout that they agree on; `None` if they contradict each other.
    fn verdict(&self, group: Group) -> Option<Layout> {
        let seen = match group {
            Group::Conv1d => self.conv1d,
            Group::Experts => self.experts,
        };
        match (seen.out_in, seen.in_out) {
            (true, false) => Some(Layout::OutIn),
            (false, true) => Some(Layout::InOut),
            _ => None,
        }
    }
}

/// The layout of a weight of this shape, if anything says it.
pub(super) fn layout(
    stored: Stored,
    shape: &[usize],
    model: &Model,
    witnesses: &Witnesses,
) -> Option<Layout> {
    if let Stored::StackedExperts(layout) = stored {
        return Some(layout);
    }
    let Some((group, hidden)) = stored.group() else {
        return Some(Layout::OutIn);
    };
    proven(group, hidden, shape, model)
        .or_else(|| witnesses.verdict(group))
        .or_else(|| {
            let model_type = model.model_type.as_deref()?;
            convention(group, model_type)
        })
}

/// The layout that the shape proves.
fn proven(group: Group, hidden: Hidden, shape: &[usize], model: &Model) -> Option<Layout> {
    let &[.., first, last] = shape else {
        return None;
    };
    if first == last {
        return None;
    }
    let hidden_axis_is_last = match model.hidden_size {
        Some(size) if size == last => true,
        Some(size) if size == first => false,
        // Without a config: what fans out of the residual stream in these models is wider than the stream.
        None if group == Group::Conv1d && hidden == Hidden::In => last < first,
        _ => return None,
    };
    Some(if hidden_axis_is_last == (hidden == Hidden::In) {
        Layout::OutIn
    } else {
        Layout::InOut
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOWN: Stored = Stored::FusedExperts(Hidden::Out);
    const GATE_UP: Stored = Stored::FusedExperts(Hidden::In);

    fn model(model_type: Option<&str>, hidden_size: Option<usize>) -> Model {
        Model {
            model_type: model_type.map(str::to_owned),
            hidden_size,
            ..Model::default()
        }
    }

    #[test]
    fn a_shape_is_believed_before_the_architecture() {
        let none = Witnesses::default();
        for (stored, shape, layout_) in [
            (GATE_UP, [8, 512, 64], Layout::OutIn),
            (GATE_UP, [8, 64, 512], Layout::InOut),
            (DOWN, [8, 64, 512], Layout::OutIn),
            (DOWN, [8, 512, 64], Layout::InOut),
        ] {
            for model_type in [None, Some("llama4"), Some("mixtral")] {
                assert_eq!(
                    layout(stored, &shape, &model(model_type, Some(64)), &none),
                    Some(layout_),
                    "{shape:?}"
                );
            }
        }
    }

    #[test]
    fn a_square_lies_as_its_neighbours_do_then_as_its_architecture_does_and_else_is_unknown() {
        let square = [8, 64, 64];
        let said = |model_type, witnesses: &Witnesses| {
            layout(DOWN, &square, &model(model_type, Some(64)), witnesses)
        };
        let mut witnesses = Witnesses::default();
        assert_eq!(said(None, &witnesses), None);
        assert_eq!(said(Some("gpt_oss"), &witnesses), Some(Layout::InOut));
        assert_eq!(said(Some("mixtral"), &witnesses), Some(Layout::OutIn));
        witnesses.hear(GATE_UP, &[8, 128, 64], &model(None, Some(64)));
        assert_eq!(said(Some("gpt_oss"), &witnesses), Some(Layout::OutIn));
        // Two that contradict each other prove nothing.
        witnesses.hear(GATE_UP, &[8, 64, 128], &model(None, Some(64)));
        assert_eq!(said(None, &witnesses), None);
    }

    #[test]
    fn without_a_config_only_what_fans_out_gives_itself_away() {
        let none = Witnesses::default();
        let said = |stored, shape: &[usize]| layout(stored, shape, &model(None, None), &none);
        assert_eq!(
            said(Stored::MaybeConv1d(Hidden::In), &[768, 2304]),
            Some(Layout::InOut)
        );
        assert_eq!(
            said(Stored::MaybeConv1d(Hidden::In), &[3072, 768]),
            Some(Layout::OutIn)
        );
        assert_eq!(said(Stored::MaybeConv1d(Hidden::Out), &[3072, 768]), None);
        assert_eq!(said(GATE_UP, &[8, 1536, 2048]), None);
        assert_eq!(said(Stored::Linear, &[5, 5]), Some(Layout::OutIn));
    }
}
