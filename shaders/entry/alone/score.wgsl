// The score alone: weights to order keys. An invocation a weight; workgroup y is the row.
//
// Needs: passes/score

@group(0) @binding(5) var<storage, read_write> order_keys: array<u32>;

@compute @workgroup_size(256)
fn score(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let column = group.x * 256u + lane;
    if column < params.in_features {
        order_keys[group.y * params.in_features + column] = order_key(group.y, column);
    }
}
