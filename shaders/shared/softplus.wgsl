// ln(1 + exp(x)), to the last bits of small results, too.
fn softplus(x: f32) -> f32 {
    let e = exp(min(x, 20.0));
    // Where 1 + e would lose the bits of e.
    let series = e * (1.0 - e * (0.5 - e * (0.33333333 - e * 0.25)));
    return select(select(log(1.0 + e), series, e < 0.015625), x, x > 20.0);
}
