// Of some rows of the head, what a loss needs: of each token the largest logit, sum exp(logit - largest), and the logit
// of the token that follows, if it is among these rows. A workgroup a token.
//
// Needs: shared/reduce

struct LogSumExp {
    // Logits a token.
    rows: u32,
    // The first of these rows in the head.
    first: u32,
}

@group(0) @binding(0) var<uniform> params: LogSumExp;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
// The token that follows each token.
@group(0) @binding(2) var<storage, read> next: array<u32>;
// Three a token.
@group(0) @binding(3) var<storage, read_write> sums: array<f32>;

const LANES: u32 = 256u;

@compute @workgroup_size(256)
fn log_sum_exp(@builtin(workgroup_id) token: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let start = token.x * params.rows;
    var own = logits[start];
    for (var i = lane; i < params.rows; i += LANES) {
        own = max(own, logits[start + i]);
    }
    let largest = largest_of_lanes(lane, own);
    var sum = 0.0;
    for (var i = lane; i < params.rows; i += LANES) {
        sum += exp(logits[start + i] - largest);
    }
    let total = sum_of_lanes(lane, sum);
    if lane == 0u {
        let target_row = next[token.x] - params.first;
        sums[3u * token.x] = largest;
        sums[3u * token.x + 1u] = total;
        sums[3u * token.x + 2u] = select(0.0, logits[start + min(target_row, params.rows - 1u)], target_row < params.rows);
    }
}
