// The primal Newton solver of one world: body of a function that envs/warp_solver.py compiles into a Warp kernel.
//
// A CUDA warp solves one world: `for (i = lane; i < n; i += LANES)`, LANES = 32. On Warp's CPU device one thread runs the
// same source with LANES = 1. All that the iteration touches lies in shared memory (on the CPU: on the stack).
//
//   minimise over a:  1/2 (a - a_smooth)' M (a - a_smooth) + sum_r s_r(J a - aref)
//
// as MuJoCo's engine_solver.c and mujoco_warp's solver.py do (cone zones, line search, tolerances). Constants from Python:
// NV, NV_PAD (dofs, columns of J in memory), NJMAX, ELLIPTIC, WARMSTART, ITERATIONS, LS_ITERATIONS. It solves the worlds of
// more than MORE_THAN and at most ROWS constraint rows; J_SHARED: J is held in shared memory, not read from efc.J.

#if defined(__CUDA_ARCH__)
constexpr int LANES = 32;
#define NEWTON_SHARED __shared__
#define NEWTON_SYNC() __syncwarp()
#define NEWTON_SUM(x) \
    for (int offset_ = 16; offset_ > 0; offset_ >>= 1) { \
        x += __shfl_xor_sync(0xffffffffu, x, offset_); \
    }
#define NEWTON_ROW(own, row) __shfl_sync(0xffffffffu, own[0], row)
#define NEWTON_RSQRT(x) rsqrtf(x)
#define NEWTON_DIVIDE(x, y) __fdividef(x, y)  // two units in the last place, a tenth of the exact one's code
#define NEWTON_UNROLL _Pragma("unroll")
#define NEWTON_LOOP _Pragma("unroll 1") for  // not unrolled: the kernel is to fit an instruction cache
#else
constexpr int LANES = 1;
#define NEWTON_SHARED
#define NEWTON_SYNC()
#define NEWTON_SUM(x)
#define NEWTON_ROW(own, row) own[row]
#define NEWTON_RSQRT(x) (1.0f / wp::sqrt(x))
#define NEWTON_DIVIDE(x, y) ((x) / (y))
#define NEWTON_UNROLL
#define NEWTON_LOOP for
#endif

// The Hessian's lower triangle as blocks of BLOCK x BLOCK, at most 28 of them: one a lane.
constexpr int BLOCK = (NV + 6) / 7;
constexpr int BLOCKS = (NV + BLOCK - 1) / BLOCK;
constexpr int STRIDE = (BLOCKS * BLOCK) | 1;  // odd: lanes that read one column of a matrix use different banks
constexpr int PER_LANE = (NV + 1 + LANES - 1) / LANES;  // rows of the Cholesky factor a lane owns; row NV is the gradient
constexpr int CONE_ROWS = ELLIPTIC ? ROWS : 1;
constexpr float MINVAL = 1e-15f;
constexpr float NOISE = 8.0f * 1.1920929e-07f;  // rounding of a line search's derivative against its gross terms

enum Kind { EQUALITY, FRICTION_DOF, FRICTION_TENDON, INEQUALITY, CONE_FIRST, CONE_NEXT, CUT };
enum State { SATISFIED, QUADRATIC, LINEARNEG, LINEARPOS, CONE };  // mjtConstraintState

struct Point {  // along the search direction: cost (against alpha = 0), slope, curvature
    float cost, slope, curve;
};

struct Workspace {
    float J[J_SHARED ? ROWS * STRIDE : 1], M[BLOCKS * BLOCK * STRIDE], L[(BLOCKS * BLOCK + 1) * STRIDE];
    float qacc[NV], Ma[NV], smooth[NV], qfrc[NV], search[NV], Mv[NV], inverse[NV];
    float D[ROWS], loss[ROWS], width[ROWS], jar[ROWS], jv[ROWS], force[ROWS];  // width: half of friction's quadratic zone
    float scale[CONE_ROWS], quad[CONE_ROWS][3];  // friction coefficients; what update_cone and prepare_cones leave
    int kind[ROWS], link[ROWS], state[ROWS];  // link: dim of CONE_FIRST, first row of CONE_NEXT, dof of FRICTION_DOF
};

NEWTON_SHARED Workspace shared_workspace;

struct Solver {
    Workspace& w;
    const float* J;
    int lane, ne, nefc;
    float gauss1, gauss2;  // smooth part of the line search: slope and half curvature at alpha = 0

    static CUDA_CALLABLE float divide(float x, float y) { return NEWTON_DIVIDE(x, y != 0.0f ? y : MINVAL); }
    static CUDA_CALLABLE float root(float x) { return x > 0.0f ? x * NEWTON_RSQRT(x) : 0.0f; }
    static CUDA_CALLABLE float cone_stiffness(float D, float mu) { return divide(D, mu * mu * (1.0f + mu * mu)); }

    CUDA_CALLABLE float jacobian(int r, int i) const
    {
        return J_SHARED ? w.J[r * STRIDE + i] : J[r * NV_PAD + wp::min(i, NV_PAD - 1)];
    }

    CUDA_CALLABLE void multiply_M(const float* x, float* y)
    {
        NEWTON_LOOP (int i = lane; i < NV; i += LANES) {
            float sum = 0.0f;
            for (int k = 0; k < NV; ++k) sum += w.M[i * STRIDE + k] * x[k];
            y[i] = sum;
        }
    }

    CUDA_CALLABLE void multiply_J(const float* x, float* y)
    {
        NEWTON_LOOP (int r = lane; r < nefc; r += LANES) {
            float sum = 0.0f;
            for (int k = 0; k < NV; ++k) sum += jacobian(r, k) * x[k];
            y[r] = sum;
        }
    }

    // Zone of an elliptic contact at x = J a - aref: N and T of its dual cone's coordinates.
    CUDA_CALLABLE int cone_zone(int r, const float* x, float& N, float& T)
    {
        const float mu = w.scale[r];
        float TT = 0.0f;
        NEWTON_LOOP (int k = r + 1; k < r + w.link[r]; ++k) {
            const float u = x[k] * w.scale[k];
            TT += u * u;
        }
        N = x[r] * mu;
        T = root(TT);
        if (N >= mu * T || (T <= 0.0f && N >= 0.0f)) return SATISFIED;
        if (mu * N + T <= 0.0f || (T <= 0.0f && N < 0.0f)) return QUADRATIC;
        return CONE;
    }

    static CUDA_CALLABLE float friction_cost(float x, float loss, float width, float D)
    {
        return -width < x && x < width ? 0.5f * D * x * x : loss * (wp::abs(x) - 0.5f * width);
    }

    // Cost of all rows at x = J a - aref.
    CUDA_CALLABLE float cost(const float* x)
    {
        float sum = 0.0f;
        NEWTON_LOOP (int r = lane; r < nefc; r += LANES) {
            const int kind = w.kind[r];
            const float D = w.D[r];
            if (kind == EQUALITY || (kind == INEQUALITY && x[r] < 0.0f)) {
                sum += 0.5f * D * x[r] * x[r];
            } else if (kind == FRICTION_DOF || kind == FRICTION_TENDON) {
                sum += friction_cost(x[r], w.loss[r], w.width[r], D);
            } else if (ELLIPTIC && kind == CONE_FIRST) {
                float N, T;
                const int zone = cone_zone(r, x, N, T);
                if (zone == CONE) {
                    const float gap = N - w.scale[r] * T;
                    sum += 0.5f * cone_stiffness(D, w.scale[r]) * gap * gap;
                } else if (zone == QUADRATIC) {
                    NEWTON_LOOP (int k = r; k < r + w.link[r]; ++k) sum += 0.5f * w.D[k] * x[k] * x[k];
                }
            }
        }
        NEWTON_SUM(sum);
        return sum;
    }

    // Force and state of a contact; quad[r] = (stiffness of the normal, of the tangents, 1 / T) of its middle zone.
    CUDA_CALLABLE void update_cone(int r)
    {
        float N, T;
        const int zone = cone_zone(r, w.jar, N, T);
        const float mu = w.scale[r], stiffness = cone_stiffness(w.D[r], mu), inverse_T = divide(1.0f, T);
        const float normal = -stiffness * (N - mu * T) * mu;
        w.quad[r][0] = stiffness * mu * mu;
        w.quad[r][1] = stiffness * mu * (mu - N * inverse_T);
        w.quad[r][2] = inverse_T;
        NEWTON_LOOP (int k = r; k < r + w.link[r]; ++k) {
            float force = 0.0f;
            if (zone == QUADRATIC) force = -w.D[k] * w.jar[k];
            else if (zone == CONE) force = k == r ? normal : -normal * inverse_T * w.jar[k] * w.scale[k] * w.scale[k];
            w.force[k] = force;
            w.state[k] = zone;
        }
    }

    // Force and state of each row at jar.
    CUDA_CALLABLE void update()
    {
        NEWTON_LOOP (int r = lane; r < nefc; r += LANES) {
            const int kind = w.kind[r];
            if (ELLIPTIC && kind == CONE_NEXT) continue;
            if (ELLIPTIC && kind == CONE_FIRST) {
                update_cone(r);
                continue;
            }
            const float x = w.jar[r];
            float force = -w.D[r] * x;
            int state = QUADRATIC;
            if (kind == FRICTION_DOF || kind == FRICTION_TENDON) {
                if (x <= -w.width[r]) {
                    force = w.loss[r];
                    state = LINEARNEG;
                } else if (x >= w.width[r]) {
                    force = -w.loss[r];
                    state = LINEARPOS;
                }
            } else if (kind == CUT || (kind == INEQUALITY && x >= 0.0f)) {
                force = 0.0f;
                state = SATISFIED;
            }
            w.force[r] = force;
            w.state[r] = state;
        }
        NEWTON_SYNC();
    }

    // Constraint force J'f and the gradient, which becomes the last row of L; returns its square.
    CUDA_CALLABLE float gradient()
    {
        float square = 0.0f;
        NEWTON_LOOP (int i = lane; i < NV; i += LANES) {
            float sum = 0.0f;
            for (int r = 0; r < nefc; ++r) sum += jacobian(r, i) * w.force[r];
            const float grad = w.Ma[i] - w.smooth[i] - sum;
            w.qfrc[i] = sum;
            w.L[NV * STRIDE + i] = grad;
            square += grad * grad;
        }
        NEWTON_SUM(square);
        return square;
    }

    // Add an elliptic contact in its middle zone, Z = diag(scale) J and p = sum_k u_k Z_k / T over its tangents:
    // dm [(Z_0 - mu p)' (Z_0 - mu p) + mu (mu - N / T) (sum_k Z_k' Z_k - p' p)].
    CUDA_CALLABLE void add_cone(int r, int i, int k, float sum[][BLOCK])
    {
        const float normal = w.quad[r][0], tangent = w.quad[r][1], inverse_T = w.quad[r][2];
        float left[BLOCK] = {}, right[BLOCK] = {};
        NEWTON_LOOP (int t = r + 1; t < r + w.link[r]; ++t) {
            const float square = w.scale[t] * w.scale[t];
            const float unit = w.jar[t] * square * inverse_T;
            for (int a = 0; a < BLOCK; ++a) {
                left[a] += unit * jacobian(t, i + a);
                right[a] += unit * jacobian(t, k + a);
                for (int b = 0; b < BLOCK; ++b) sum[a][b] += tangent * square * jacobian(t, i + a) * jacobian(t, k + b);
            }
        }
        for (int a = 0; a < BLOCK; ++a) {
            for (int b = 0; b < BLOCK; ++b) {
                sum[a][b] -= tangent * left[a] * right[b];
                sum[a][b] += normal * (jacobian(r, i + a) - left[a]) * (jacobian(r, k + b) - right[b]);
            }
        }
    }

    // H = M + J' D J over quadratic rows + cones: the lower triangle of L.
    CUDA_CALLABLE void hessian()
    {
        NEWTON_LOOP (int block = lane; block < BLOCKS * (BLOCKS + 1) / 2; block += LANES) {
            int i = 0, k = block;
            while (k > i) k -= ++i;
            i *= BLOCK;
            k *= BLOCK;
            float sum[BLOCK][BLOCK];
            for (int a = 0; a < BLOCK; ++a) {
                for (int b = 0; b < BLOCK; ++b) sum[a][b] = w.M[(i + a) * STRIDE + k + b];
            }
            NEWTON_LOOP (int r = 0; r < nefc; ++r) {
                const int state = w.state[r];
                if (state == QUADRATIC && w.kind[r] != FRICTION_DOF) {
                    for (int a = 0; a < BLOCK; ++a) {
                        const float weighted = w.D[r] * jacobian(r, i + a);
                        for (int b = 0; b < BLOCK; ++b) sum[a][b] += weighted * jacobian(r, k + b);
                    }
                } else if (ELLIPTIC && state == CONE && w.kind[r] == CONE_FIRST) {
                    add_cone(r, i, k, sum);
                }
            }
            for (int a = 0; a < BLOCK; ++a) {
                for (int b = 0; b < BLOCK; ++b) {
                    if (i + a < NV) w.L[(i + a) * STRIDE + k + b] = sum[a][b];
                }
            }
        }
        NEWTON_SYNC();
        NEWTON_LOOP (int r = lane; r < nefc; r += LANES) {
            if (w.kind[r] == FRICTION_DOF && w.state[r] == QUADRATIC) w.L[w.link[r] * (STRIDE + 1)] += w.D[r];
        }
        NEWTON_SYNC();
    }

    // Factor H = L L' with the gradient as one more row, so that L y = g comes with it; then search = -L'^-1 y.
    // Returns y'y = g' H^-1 g (the Newton decrement) and the square of the search direction.
    CUDA_CALLABLE float factor(float& search_square)
    {
        float own[NV][PER_LANE];
NEWTON_UNROLL
        for (int j = 0; j < NV; ++j) {
            for (int p = 0; p < PER_LANE; ++p) {
                const int i = p * LANES + lane;
                own[j][p] = i <= NV ? w.L[i * STRIDE + j] : 0.0f;
            }
        }
NEWTON_UNROLL
        for (int j = 0; j < NV; ++j) {
            const float diagonal = w.L[j * STRIDE + j];
            for (int p = 0; p < PER_LANE; ++p) {
                float even = own[j][p], odd = 0.0f;
NEWTON_UNROLL
                for (int k = 0; k + 1 < j; k += 2) {
                    even -= own[k][p] * w.L[j * STRIDE + k];
                    odd -= own[k + 1][p] * w.L[j * STRIDE + k + 1];
                }
                if (j % 2) even -= own[j - (j > 0)][p] * w.L[j * STRIDE + j - (j > 0)];
                own[j][p] = even + odd;
            }
            const float pivot = NEWTON_ROW(own[j], j);
            const float inverse = NEWTON_RSQRT(wp::max(pivot, 1e-7f * wp::max(diagonal, MINVAL)));
            for (int p = 0; p < PER_LANE; ++p) {
                const int i = p * LANES + lane;
                own[j][p] *= inverse;
                if (i > j && i <= NV) w.L[i * STRIDE + j] = own[j][p];
                if (i == j) w.inverse[j] = inverse;
            }
            NEWTON_SYNC();
        }
        float x[PER_LANE], decrement = 0.0f;
        for (int p = 0; p < PER_LANE; ++p) {
            const int i = p * LANES + lane;
            x[p] = i < NV ? w.L[NV * STRIDE + i] : 0.0f;
            decrement += x[p] * x[p];
        }
NEWTON_UNROLL
        for (int j = NV - 1; j >= 0; --j) {
            const float solved = NEWTON_ROW(x, j) * w.inverse[j];
            for (int p = 0; p < PER_LANE; ++p) {
                const int i = p * LANES + lane;
                if (i < j) x[p] -= w.L[j * STRIDE + i] * solved;
                else if (i == j) x[p] = solved;
            }
        }
        search_square = 0.0f;
        for (int p = 0; p < PER_LANE; ++p) {
            const int i = p * LANES + lane;
            if (i < NV) {
                w.search[i] = -x[p];
                search_square += x[p] * x[p];
            }
        }
        NEWTON_SUM(decrement);
        NEWTON_SUM(search_square);
        NEWTON_SYNC();
        return decrement;
    }

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
        if (TT <= 0.0f) return N < 0.0f ? Reference { w.quad[r][0], 0.0f, 0.0f, QUADRATIC } : Reference { 0.0f, 0.0f, 0.0f, SATISFIED };
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
            return { alpha * (Dv * x0 + 0.5f * alpha * v * Dv) + (quadratic - cost0), Dv * x0 + alpha * v * Dv, v * Dv };
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
        return { sum.cost + alpha * (alpha * gauss2 + gauss1), sum.slope + (2.0f * alpha * gauss2 + gauss1), sum.curve + 2.0f * gauss2 };
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

    struct Trial {
        float alpha;
        Point at;
    };

    static CUDA_CALLABLE bool nearer(const Trial& x, const Trial& y)
    {
        return (x.at.slope < y.at.slope && y.at.slope < 0.0f) || (x.at.slope > y.at.slope && y.at.slope > 0.0f);
    }

    static CUDA_CALLABLE bool replace(Trial& trial, const Trial& by, bool better)
    {
        if (better) trial = by;
        return better;
    }

    static CUDA_CALLABLE float newton(const Trial& trial) { return trial.alpha - divide(trial.at.slope, trial.at.curve); }

    static CUDA_CALLABLE bool accepted(const Trial& trial, float tolerance) { return wp::abs(trial.at.slope) < tolerance && trial.at.cost < 0.0f; }

    // Narrow the bracket by its ends' Newton steps and its middle. Returns whether `best` is final.
    static CUDA_CALLABLE bool narrow(Trial& lo, Trial& hi, const Trial (&next)[3], float gtol, float accept, Trial& best)
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
                const float gross = root(2.0f * wp::max(trial.at.cost, 0.0f) * wp::max(trial.at.curve, 0.0f)) + wp::abs(gauss1);
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

    CUDA_CALLABLE void load_rows(const float* D, const float* loss, const int* type, const int* id, int nf)
    {
        for (int e = lane; J_SHARED && e < nefc * STRIDE; e += LANES) {
            const int r = e / STRIDE, i = e % STRIDE;
            w.J[e] = i < NV ? J[r * NV_PAD + i] : 0.0f;
        }
        NEWTON_LOOP (int r = lane; r < nefc; r += LANES) {
            w.D[r] = D[r];
            w.loss[r] = loss[r];
            w.width[r] = divide(loss[r], D[r]);
            w.link[r] = id[r];
            w.kind[r] = r < ne ? EQUALITY : r >= ne + nf ? INEQUALITY : type[r] == 1 ? FRICTION_DOF : FRICTION_TENDON;
            if (ELLIPTIC) w.scale[r] = 0.0f;
        }
        NEWTON_SYNC();
    }

    // Rows of elliptic contacts; a contact that was cut at njmax takes no part.
    CUDA_CALLABLE void load_cones(const int* type, const int* dims, const int* address, int address_stride, const float* friction, float impratio_invsqrt)
    {
        NEWTON_LOOP (int r = lane; r < nefc; r += LANES) {
            if (w.kind[r] != INEQUALITY || type[r] != CONTACT_ELLIPTIC) continue;
            const int contact = w.link[r], dim = dims[contact], first = address[contact * address_stride], k = r - first;
            w.kind[r] = first + dim > nefc ? CUT : k == 0 ? CONE_FIRST : CONE_NEXT;
            w.link[r] = k == 0 ? dim : first;
            w.scale[r] = k == 0 ? friction[contact * 5] * impratio_invsqrt : friction[contact * 5 + k - 1];
        }
        NEWTON_SYNC();
    }

    // M as a full symmetric matrix, zero beyond NV; returns its trace.
    CUDA_CALLABLE float load_M(const float* M, const int* row, const int* column, int nonzeros)
    {
        NEWTON_LOOP (int e = lane; e < BLOCKS * BLOCK * STRIDE; e += LANES) w.M[e] = 0.0f;
        NEWTON_SYNC();
        float trace = 0.0f;
        NEWTON_LOOP (int e = lane; e < nonzeros; e += LANES) {
            const int i = row[e], k = column[e];
            w.M[i * STRIDE + k] = w.M[k * STRIDE + i] = M[e];
            if (i == k) trace += M[e];
        }
        NEWTON_SUM(trace);
        NEWTON_SYNC();
        return trace;
    }

    CUDA_CALLABLE void copy(const float* from, float* to, int n)
    {
        NEWTON_LOOP (int i = lane; i < n; i += LANES) to[i] = from[i];
    }

    // qacc, Ma and jar at the warm start, or at qacc_smooth where that costs less.
    CUDA_CALLABLE void start(const float* qacc_smooth, const float* qacc_warmstart, const float* aref)
    {
        copy(qacc_smooth, w.search, NV);
        copy(WARMSTART && nefc > 0 ? qacc_warmstart : qacc_smooth, w.qacc, NV);
        NEWTON_SYNC();
        multiply_M(w.qacc, w.Ma);
        NEWTON_LOOP (int smooth = 0; smooth < (WARMSTART ? 2 : 1); ++smooth) {
            float* x = smooth ? w.jv : w.jar;
            multiply_J(smooth ? w.search : w.qacc, x);
            NEWTON_LOOP (int r = lane; r < nefc; r += LANES) x[r] -= aref[r];
        }
        NEWTON_SYNC();
        if (!WARMSTART || nefc == 0) return;
        float motion = 0.0f;
        NEWTON_LOOP (int i = lane; i < NV; i += LANES) motion += 0.5f * (w.Ma[i] - w.smooth[i]) * (w.qacc[i] - w.search[i]);
        NEWTON_SUM(motion);
        float excess = motion;
        NEWTON_LOOP (int smooth = 0; smooth < 2; ++smooth) {
            const float rows = cost(smooth ? w.jv : w.jar);
            excess += smooth ? -rows : rows;
        }
        if (excess <= 0.0f) return;
        copy(w.search, w.qacc, NV);
        copy(w.jv, w.jar, nefc);
        multiply_M(w.search, w.Ma);
        NEWTON_SYNC();
    }

    // Newton iterations until the world has converged; returns their number, and ORs what ran out into overflow.
    CUDA_CALLABLE int iterate(float tolerance, float ls_tolerance, float trace, int& overflow)
    {
        const float scale = divide(1.0f, trace);
        Trial step = { 0.0f, { 0.0f, 0.0f, 0.0f } };
        NEWTON_LOOP (int iteration = 0;; ++iteration) {
            update();
            const float gradient_norm = scale * root(gradient());
            if (nefc == 0) return 0;
            const float gain = -scale * step.at.cost;
            bool done = iteration > 0 && (step.alpha == 0.0f || gradient_norm < tolerance || (gain > 0.0f && gain < tolerance));
            if (done || ITERATIONS == 0) return iteration;
            float search_square;
            hessian();
            const float decrement = factor(search_square);
            if (iteration > 0 && 0.5f * scale * decrement < tolerance) return iteration;
            if (iteration == ITERATIONS) {
                overflow |= OVERFLOW_ITERATIONS;
                return iteration;
            }
            const float gtol = wp::max(tolerance * ls_tolerance * root(search_square) * trace, 1e-6f);
            if (!line_search(gtol, step)) overflow |= OVERFLOW_LS_ITERATIONS;
            NEWTON_LOOP (int i = lane; i < NV; i += LANES) {
                w.qacc[i] += step.alpha * w.search[i];
                w.Ma[i] += step.alpha * w.Mv[i];
            }
            NEWTON_LOOP (int r = lane; r < nefc; r += LANES) w.jar[r] += step.alpha * w.jv[r];
            NEWTON_SYNC();
        }
    }
};

const int rows = wp::min(problem.nefc.data[world], NJMAX);
if (rows <= MORE_THAN || rows > ROWS) return;
Solver solver { shared_workspace, &wp::index(problem.efc_J, world, 0, 0), lane, wp::min(problem.ne.data[world], rows), rows };
const int* row_type = &wp::index(problem.efc_type, world, 0);
solver.load_rows(&wp::index(problem.efc_D, world, 0), &wp::index(problem.efc_frictionloss, world, 0), row_type, &wp::index(problem.efc_id, world, 0), problem.nf.data[world]);
if (ELLIPTIC) solver.load_cones(row_type, problem.contact_dim.data, problem.contact_efc_address.data, problem.contact_efc_address.shape[1], reinterpret_cast<const float*>(problem.contact_friction.data), wp::index(problem.impratio_invsqrt, world % problem.impratio_invsqrt.shape[0]));
const float trace = solver.load_M(&wp::index(problem.M, world, 0), problem.M_row.data, problem.M_column.data, problem.M_column.shape[0]);
solver.copy(&wp::index(problem.qfrc_smooth, world, 0), shared_workspace.smooth, NV);
solver.start(&wp::index(problem.qacc_smooth, world, 0), &wp::index(problem.qacc_warmstart, world, 0), &wp::index(problem.efc_aref, world, 0));
int overflowed = 0;
const int niter = solver.iterate(wp::index(problem.tolerance, world % problem.tolerance.shape[0]), wp::index(problem.ls_tolerance, world % problem.ls_tolerance.shape[0]), trace, overflowed);
solver.copy(shared_workspace.qacc, &wp::index(problem.qacc, world, 0), NV);
solver.copy(shared_workspace.Ma, &wp::index(problem.efc_Ma, world, 0), NV);
solver.copy(shared_workspace.qfrc, &wp::index(problem.qfrc_constraint, world, 0), NV);
solver.copy(shared_workspace.force, &wp::index(problem.efc_force, world, 0), rows);
NEWTON_LOOP (int r = lane; r < rows; r += LANES) wp::index(problem.efc_state, world, r) = shared_workspace.state[r];
if (lane == 0) {
    problem.solver_niter.data[world] = niter;
    problem.overflow.data[world] |= overflowed;
}
NEWTON_SYNC();
#undef NEWTON_SHARED
#undef NEWTON_SYNC
#undef NEWTON_SUM
#undef NEWTON_ROW
#undef NEWTON_RSQRT
#undef NEWTON_DIVIDE
#undef NEWTON_UNROLL
#undef NEWTON_LOOP
