// The moving average alone: order keys to threshold keys, in three dispatches.
//
// Needs: passes/ewma

@group(0) @binding(5) var<storage, read> order_keys: array<u32>;
@group(0) @binding(6) var<storage, read_write> keys: array<u32>;

fn order_key(row: u32, column: u32) -> u32 {
    return order_keys[row * params.in_features + column];
}

@compute @workgroup_size(256)
fn block_statistics(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first_block = group.x * BATCH;
    batch_statistics(group.y, first_block, lane);
    if lane < BATCH && first_block + lane < params.blocks {
        averages[group.y * params.blocks + first_block + lane] = statistics[lane];
    }
}

@compute @workgroup_size(64)
fn moving_average(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if row >= params.rows {
        return;
    }
    var average = average_of_nothing();
    for (var block = 0u; block < params.blocks; block += 1u) {
        let index = row * params.blocks + block;
        average = follow(average, averages[index]);
        averages[index] = average;
    }
}

@compute @workgroup_size(256)
fn normalise(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y;
    let column = group.x * 256u + lane;
    if column < params.in_features {
        let average = averages[row * params.blocks + (column >> params.block_shift)];
        keys[row * params.in_features + column] = threshold_key(order_key(row, column), average);
    }
}
