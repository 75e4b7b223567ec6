// N:M alone: order keys to a mask.
//
// Needs: passes/n_of_m

@group(0) @binding(4) var<storage, read_write> mask: array<u32>;
@group(0) @binding(5) var<storage, read> order_keys: array<u32>;

fn group_key(row: u32, column: u32) -> u32 {
    return order_keys[row * params.in_features + column];
}

@compute @workgroup_size(64)
fn n_of_m(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let word = group.x * 64u + lane;
    if word < params.mask_words {
        mask[group.y * params.mask_words + word] = word_of_groups(group.y, word);
    }
}
