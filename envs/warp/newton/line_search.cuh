// Exact line search along the Newton step.

struct Point {  // along the search direction: cost (against alpha = 0), slope, curvature
    float cost, slope, curve;
};

struct Trial {
    float alpha;
    Point at;
};

struct LineSearch : Hessian {
    float gauss1, gauss2;  // smooth part of the cost: slope and half curvature at alpha = 0

    // Of each elliptic contact, along the search: quad[r] = cost of its quadratic zone (1, alpha, alpha^2),
    // quad[r + 1] = (N, dN / dalpha, T^2), quad[r + 2] = (half of dT^2 / dalpha, its rate, stiffness of the cone).
    CUDA_CALLABLE void prepare_cones()
    {
        NEWTON_LOOP (int r = lane; r < nefc; r += LANES) {
            if (w.kind[r] != CONE_FIRST) continue;
            float q0 = 0.0f, q1 = 0.0f, q2 = 0.0f, uu = 0.0f, uv = 0.0f, vv = 0.0f;
            NEWTON_LOOP (int k = r; k < r + w.link[r]; ++k) {
                const float x = w.jar[k], v = w.jv[k], Dx = w.D[k] * x;
                q0 += 0.5f * x * Dx;
                q1 += v * Dx;
                q2 += 0.5f * v * w.D[k] * v;
                if (k > r) {
                    const float us = x * w.scale[k], vs = v * w.scale[k];
                    uu += us * us;
                    uv += us * vs;
                    vv += vs * vs;
                }
            }
            const float mu = w.scale[r];
            w.quad[r][0] = q0;
            w.quad[r][1] = q1;
            w.quad[r][2] = q2;
            w.quad[r + 1][0] = w.jar[r] * mu;
            w.quad[r + 1][1] = w.jv[r] * mu;
            w.quad[r + 1][2] = uu;
            w.quad[r + 2][0] = uv;
            w.quad[r + 2][1] = vv;
            w.quad[r + 2][2] = cone_stiffness(w.D[r], mu);
        }
        NEWTON_SYNC();
    }

    struct Reference {  // an elliptic contact at alpha = 0
        float cost, T, gap;
        int zone;
    };

    CUDA_CALLABLE Reference cone_reference(int r)
    {
        const float mu = w.scale[r], N = w.quad[r + 1][0], TT = w.quad[r + 1][2];
        if (TT <= 0.0f && N < 0.0f) return { w.quad[r][0], 0.0f, 0.0f, QUADRATIC };
        if (TT <= 0.0f) return { 0.0f, 0.0f, 0.0f, SATISFIED };
        const float T = root(TT);
        if (N >= mu * T) return { 0.0f, T, 0.0f, SATISFIED };
        if (mu * N + T <= 0.0f) return { w.quad[r][0], T, 0.0f, QUADRATIC };
        const float gap = N - mu * T;
        return { 0.5f * w.quad[r + 2][2] * gap * gap, T, gap, CONE };
    }

    // Differences of costs are formed without subtracting two large numbers, as mujoco_warp does.
    CUDA_CALLABLE Point cone_point(int r, float alpha, const Reference& at)
    {
        const float mu = w.scale[r];
        const float u0 = w.quad[r + 1][0], v0 = w.quad[r + 1][1], uu = w.quad[r + 1][2];
        const float uv = w.quad[r + 2][0], vv = w.quad[r + 2][1], stiffness = w.quad[r + 2][2];
        const float N = u0 + alpha * v0;
        const float TT_change = alpha * (2.0f * uv + alpha * vv);
        const float TT = uu + TT_change;
        const float T = root(TT);
        if (TT <= 0.0f ? N >= 0.0f : N >= mu * T) return { -at.cost, 0.0f, 0.0f };
        const float aq2 = alpha * w.quad[r][2];
        const float quadratic = alpha * (aq2 + w.quad[r][1]);  // against its own value at alpha = 0
        if (TT <= 0.0f || mu * N + T <= 0.0f) {
            float cost = quadratic;
            if (at.zone == CONE) {
                const float boundary = mu * u0 + at.T;
                cost += 0.5f * stiffness * boundary * boundary;
            } else if (at.zone == SATISFIED) {
                cost = 0.5f * stiffness * (1.0f + mu * mu) * (N * N + wp::max(TT, 0.0f));
            }
            return { cost, 2.0f * aq2 + w.quad[r][1], 2.0f * w.quad[r][2] };
        }
        const float inverse_T = divide(1.0f, T);
        const float T1 = (uv + alpha * vv) * inverse_T;
        const float T2 = (vv - T1 * T1) * inverse_T;
        const float gap = N - mu * T, gap1 = v0 - mu * T1;
        float cost = 0.5f * stiffness * gap * gap;
        if (at.zone == CONE) {
            const float change = alpha * v0 - mu * divide(TT_change, T + at.T);
            cost = 0.5f * stiffness * change * (2.0f * at.gap + change);
        } else if (at.zone == QUADRATIC) {
            const float boundary = mu * N + T;
            cost = quadratic - 0.5f * stiffness * boundary * boundary;
        }
        return { cost, stiffness * gap * gap1, stiffness * (gap1 * gap1 - mu * gap * T2) };
    }

    // One row at alpha, against its cost at alpha = 0 (absolute: the cost itself). Equalities are in the smooth part.
    CUDA_CALLABLE Point row_point(int r, float alpha, bool absolute)
    {
        const int kind = w.kind[r];
        if (kind == EQUALITY || kind == CUT || (ELLIPTIC && kind == CONE_NEXT)) return { 0.0f, 0.0f, 0.0f };
        if (ELLIPTIC && kind == CONE_FIRST) {
            const Reference at = cone_reference(r);
            Point point = cone_point(r, alpha, at);
            if (absolute) point.cost += at.cost;
            return point;
        }
        const float D = w.D[r], x0 = w.jar[r], v = w.jv[r], x = x0 + alpha * v, Dv = D * v;
        if (kind == INEQUALITY) {
            const float quadratic = 0.5f * D * x0 * x0, cost0 = x0 < 0.0f && !absolute ? quadratic : 0.0f;
            if (x >= 0.0f) return { -cost0, 0.0f, 0.0f };
            const float curve = v * Dv;
            return { alpha * (Dv * x0 + 0.5f * alpha * curve) + (quadratic - cost0), Dv * x0 + alpha * curve, curve };
        }
        const float loss = w.loss[r], width = w.width[r];
        const float cost = friction_cost(x, loss, width, D) - (absolute ? 0.0f : friction_cost(x0, loss, width, D));
        if (-width < x && x < width) return { cost, Dv * x, v * Dv };
        return { cost, x <= -width ? -loss * v : loss * v, 0.0f };
    }

    // All of the cost along the search at alpha, against alpha = 0; absolute: the rows alone, and their cost itself.
    CUDA_CALLABLE Point evaluate(float alpha, bool absolute)
    {
        Point sum = { 0.0f, 0.0f, 0.0f };
        NEWTON_LOOP (int r = ne + lane; r < nefc; r += LANES) {
            const Point row = row_point(r, alpha, absolute);
            sum = { sum.cost + row.cost, sum.slope + row.slope, sum.curve + row.curve };
        }
        NEWTON_SUM(sum.cost);
        NEWTON_SUM(sum.slope);
        NEWTON_SUM(sum.curve);
        if (absolute) return sum;
        const Point smooth = { alpha * (alpha * gauss2 + gauss1), 2.0f * alpha * gauss2 + gauss1, 2.0f * gauss2 };
        return { sum.cost + smooth.cost, sum.slope + smooth.slope, sum.curve + smooth.curve };
    }

    // Smooth part along the search: slope and half curvature at alpha = 0, with the equalities.
    CUDA_CALLABLE void prepare_smooth()
    {
        gauss1 = gauss2 = 0.0f;
        NEWTON_LOOP (int i = lane; i < NV; i += LANES) {
            gauss1 += w.search[i] * (w.Ma[i] - w.smooth[i]);
            gauss2 += 0.5f * w.search[i] * w.Mv[i];
        }
        NEWTON_LOOP (int r = lane; r < ne; r += LANES) {
            const float Dv = w.jv[r] * w.D[r];
            gauss1 += Dv * w.jar[r];
            gauss2 += 0.5f * w.jv[r] * Dv;
        }
        NEWTON_SUM(gauss1);
        NEWTON_SUM(gauss2);
    }

    static CUDA_CALLABLE bool nearer(const Trial& x, const Trial& y)
    {
        return (x.at.slope < y.at.slope && y.at.slope < 0.0f) || (x.at.slope > y.at.slope && y.at.slope > 0.0f);
    }

    static CUDA_CALLABLE bool replace(Trial& trial, const Trial& by, bool better)
    {
        if (better) trial = by;
        return better;
    }

    static CUDA_CALLABLE float newton(const Trial& trial)
    {
        return trial.alpha - divide(trial.at.slope, trial.at.curve);
    }

    static CUDA_CALLABLE bool accepted(const Trial& trial, float tolerance)
    {
        return wp::abs(trial.at.slope) < tolerance && trial.at.cost < 0.0f;
    }

    // Narrow the bracket by its ends' Newton steps and its middle. Returns whether `best` is final.
    static CUDA_CALLABLE bool
    narrow(Trial& lo, Trial& hi, const Trial (&next)[3], float gtol, float accept, Trial& best)
    {
        bool final = false;
        Trial found = { 0.0f, { 1e10f, 0.0f, 0.0f } };
        for (int c = 0; c < 3; ++c) {
            const bool fine = accepted(next[c], accept);
            final = final || fine;
            replace(found, next[c], fine && next[c].at.cost < found.at.cost);
        }
        if (final) {
            best = found;
            return true;
        }
        bool moved = replace(lo, next[0], nearer(lo, next[0]));
        moved |= replace(lo, next[2], nearer(lo, next[2]));
        moved |= replace(lo, next[1], nearer(lo, next[1]));
        moved |= replace(hi, next[1], nearer(hi, next[1]) || (hi.at.slope < 0.0f && next[1].at.slope > 0.0f));
        moved |= replace(hi, next[2], nearer(hi, next[2]));
        moved |= replace(hi, next[0], nearer(hi, next[0]));
        if (lo.at.cost < 0.0f || hi.at.cost < 0.0f) best = lo.at.cost < hi.at.cost ? lo : hi;
        return !moved || (lo.at.slope < 0.0f && accepted(lo, gtol)) || (hi.at.slope > 0.0f && accepted(hi, gtol));
    }

    // Exact line search; best: the step (0: none is better) and the cost it gains. Returns false if the limit was met.
    // One loop evaluates every trial, as its code is long: alpha = 0, then the Newton step, then three a round.
    CUDA_CALLABLE bool line_search(float gtol, Trial& best)
    {
        multiply_M(w.search, w.Mv);
        multiply_J(w.search, w.jv);
        NEWTON_SYNC();
        if (ELLIPTIC) prepare_cones();
        prepare_smooth();
        best = { 0.0f, { 0.0f, 0.0f, 0.0f } };
        Trial lo = best, hi = best, next[3] = { best, best, best };
        float accept = gtol;
        int c = -2;
        NEWTON_LOOP (int round = 0; round < LS_ITERATIONS || c < 0;) {
            const float alpha = c == 1 ? next[1].alpha : c == 2 ? next[2].alpha : next[0].alpha;
            const Trial trial = { alpha, evaluate(alpha, c == -2) };
            if (c == -2) {
                const float square = 2.0f * wp::max(trial.at.cost, 0.0f) * wp::max(trial.at.curve, 0.0f);
                const float gross = root(square) + wp::abs(gauss1);
                lo.at = { 0.0f, trial.at.slope + gauss1, trial.at.curve + 2.0f * gauss2 };
                if (wp::abs(lo.at.slope) < NOISE * gross) return true;
                accept = wp::max(gtol, NOISE * gross);
                next[0].alpha = newton(lo);
            } else if (c == -1) {
                hi = trial;
                if (accepted(hi, accept)) {
                    best = hi;
                    return true;
                }
                if (hi.at.slope < lo.at.slope) {
                    hi = lo;
                    lo = trial;
                }
            } else if (c == 0) {
                next[0] = trial;
            } else if (c == 1) {
                next[1] = trial;
            } else {
                next[2] = trial;
                if (narrow(lo, hi, next, gtol, accept, best)) return true;
                ++round;
            }
            c = c == 2 ? 0 : c + 1;
            if (c == 0) {
                next[0].alpha = newton(lo);
                next[1].alpha = newton(hi);
                next[2].alpha = 0.5f * (lo.alpha + hi.alpha);
            }
        }
        return false;
    }
};
