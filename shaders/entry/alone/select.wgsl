// The selection alone: order keys or threshold keys to a mask.
//
// Needs: passes/select

@group(0) @binding(6) var<storage, read> keys: array<u32>;

fn key(row: u32, column: u32) -> u32 {
    return keys[row * params.in_features + column];
}

@compute @workgroup_size(256)
fn smallest_k(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    prune_smallest_k(group.x, lane);
}

@compute @workgroup_size(64)
fn below_lambda(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let word = group.x * 64u + lane;
    if word < params.mask_words {
        mask[group.y * params.mask_words + word] = word_below(group.y, word);
    }
}
