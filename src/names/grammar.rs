//! The grammar of tensor names, which every architecture shares.
//!
//! Names of decoder weights read `PREFIX.CONTAINER.N.TAIL`, as in `model` `layers` `3` `self_attn.q_proj.weight`. The
//! prefix varies with the model class that was saved, so only the tail says what a weight is.

/// Names that hold the numbered blocks.
const CONTAINERS: &[&str] = &["layers", "h", "blocks"];

/// A name within the numbered blocks of the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block<'a> {
    /// The number, as written.
    pub(crate) number: &'a str,
    /// What follows it.
    pub(crate) tail: &'a str,
}

/// The block a tensor belongs to; `None` outside of blocks, in encoders and in towers of other modalities.
pub(crate) fn block(name: &str) -> Option<Block<'_>> {
    if of_another_modality(name) {
        return None;
    }
    let mut rest = name;
    let mut before = "";
    // An encoder that stands alone under `transformer` is chatglm's name for its decoder.
    let mut encoder = false;
    while let Some((part, after)) = rest.split_once('.') {
        if CONTAINERS.contains(&part)
            && let Some((number, tail)) = after.split_once('.')
            && is_number(number)
        {
            return (!encoder).then_some(Block { number, tail });
        }
        encoder |= part == "encoder" && before != "transformer";
        (before, rest) = (part, after);
    }
    None
}

/// Whether a tensor belongs to a decoder beside the main one, whose blocks are numbered from 0 again: the one that
/// predicts several tokens, or drafts them.
pub(crate) fn is_of_side_decoder(name: &str) -> bool {
    stack(name).is_some_and(names_a_side_decoder)
}

fn names_a_side_decoder(name: &str) -> bool {
    const STARTS: &[&str] = &["mtp", "nextn", "draft", "eagle", "medusa"];
    name.split('.')
        .any(|part| STARTS.iter().any(|start| part.starts_with(start)))
}

/// Whether a name says that the decoder does without the tensor: it is of another modality, or of what predicts further tokens, in
/// its blocks or not.
pub(crate) fn is_beside_the_decoder(name: &str) -> bool {
    of_another_modality(name) || names_a_side_decoder(name)
}

/// The name of the numbered blocks that a tensor lies in, without the number: `model.layers`.
pub(crate) fn stack(name: &str) -> Option<&str> {
    let block = block(name)?;
    Some(&name[..name.len() - block.tail.len() - block.number.len() - 2])
}

/// What a pattern found in a tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Match {
    /// The number in place of `*`: the expert.
    pub(crate) expert: Option<usize>,
}

/// Compares a tail, without `.weight`, with a pattern, part by part.
pub(crate) fn match_tail(pattern: &str, tail: &str) -> Option<Match> {
    let mut found = Match { expert: None };
    let mut parts = tail.split('.');
    for wanted in pattern.split('.') {
        let part = parts.next()?;
        if wanted == "*" {
            found.expert = Some(part.parse().ok().filter(|_| is_number(part))?);
        } else if wanted != part {
            return None;
        }
    }
    parts.next().is_none().then_some(found)
}

/// A short label for tables: the last part of the module's name, and more where that alone would mix unlike things.
pub(crate) fn kind(name: &str) -> String {
    let bare = name.strip_suffix(".weight").unwrap_or(name);
    let last = bare.rsplit('.').next().unwrap_or(bare);
    let Some(block) = block(bare) else {
        return last.to_owned();
    };
    let has = |part: &str| block.tail.split('.').any(|p| p == part);
    if has("experts") {
        format!("experts.{last}")
    } else if has("shared_expert") || has("shared_experts") || has("shared_mlp") {
        format!("shared_expert.{last}")
    } else if last == "c_proj" {
        // The same name in the attention and in the feed-forward.
        block
            .tail
            .strip_suffix(".weight")
            .unwrap_or(block.tail)
            .to_owned()
    } else {
        last.to_owned()
    }
}

/// Whether a part of the name is of a vision, audio or speech tower, or of what connects it to the language model.
pub(crate) fn of_another_modality(name: &str) -> bool {
    const STARTS: &[&str] = &[
        "vision",
        "visual",
        "vit",
        "image",
        "img_",
        "patch_",
        "sam_",
        "audio",
        "speech",
        "talker",
        "code2wav",
        "token2wav",
        "multi_modal",
        "multimodal",
        "mm_",
        "embed_vision",
        "embed_audio",
        "connector",
        "aligner",
        "resampler",
    ];
    name.split('.')
        .any(|part| STARTS.iter().any(|start| part.starts_with(start)))
}

/// A name with `*` for every number: what the tensors of one kind in all blocks have in common.
pub(crate) fn numberless(name: &str) -> String {
    let part = |part| if is_number(part) { "*" } else { part };
    name.split('.').map(part).collect::<Vec<_>>().join(".")
}

fn is_number(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_found_behind_any_prefix_but_not_in_a_tower_or_an_encoder() {
        let found = |name| block(name).map(|b| (b.number, b.tail));
        for prefix in [
            "",
            "model.",
            "transformer.",
            "gpt_neox.",
            "model.decoder.",
            "language_model.model.",
            "transformer.encoder.",
        ] {
            let name = format!("{prefix}layers.12.fc1.weight");
            assert_eq!(
                block(&name).map(|b| (b.number, b.tail)),
                Some(("12", "fc1.weight")),
                "{name}"
            );
        }
        assert_eq!(found("h.0.mlp.c_fc.weight"), Some(("0", "mlp.c_fc.weight")));
        for name in [
            "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight",
            "model.visual.blocks.0.attn.qkv.weight",
            "model.encoder.layers.0.fc1.weight",
            "model.layers.x.fc1.weight",
            "model.layers",
            "layers.0",
            "",
        ] {
            assert_eq!(found(name), None, "{name}");
        }
    }

    #[test]
    fn the_blocks_of_a_side_decoder_are_not_those_of_the_decoder() {
        let name = "mtp.layers.0.mlp.up_proj.weight";
        assert_eq!(stack(name), Some("mtp.layers"));
        assert!(is_of_side_decoder(name));
        let name = "model.layers.0.mlp.up_proj.weight";
        assert_eq!(stack(name), Some("model.layers"));
        assert!(!is_of_side_decoder(name) && !is_of_side_decoder("mtp.norm.weight"));
        assert!(is_beside_the_decoder("mtp.norm.weight") && !is_beside_the_decoder(name));
    }

    #[test]
    fn a_star_is_one_number_and_nothing_else() {
        let expert = |tail| match_tail("experts.*.w1", tail).map(|m| m.expert);
        assert_eq!(expert("experts.7.w1"), Some(Some(7)));
        for tail in [
            "experts.w1",
            "experts.x.w1",
            "experts.+7.w1",
            "experts.7.7.w1",
            "experts.7.w1.more",
            "experts.7",
            "",
        ] {
            assert_eq!(expert(tail), None, "{tail}");
        }
        assert_eq!(expert("experts.99999999999999999999999.w1"), None);
    }

    #[test]
    fn labels_keep_unlike_things_apart() {
        for (name, label) in [
            ("model.layers.3.self_attn.q_proj.weight", "q_proj"),
            (
                "model.layers.3.block_sparse_moe.experts.5.w1.weight",
                "experts.w1",
            ),
            (
                "model.layers.3.mlp.experts.gate_up_proj",
                "experts.gate_up_proj",
            ),
            (
                "model.layers.3.mlp.shared_experts.down_proj.weight",
                "shared_expert.down_proj",
            ),
            ("h.3.attn.c_proj.weight", "attn.c_proj"),
            ("h.3.mlp.c_proj.weight", "mlp.c_proj"),
            ("lm_head.weight", "lm_head"),
        ] {
            assert_eq!(kind(name), label);
        }
    }
}
