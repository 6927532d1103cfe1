// The primal Newton solver of one world, as MuJoCo's engine_solver.c and mujoco_warp's solver.py have it. It finds
// accelerations a that
//
//   minimise  1/2 (a - a_smooth)' M (a - a_smooth) + sum_r s_r(J a - aref)
//
// The files of this folder, one after the other (world, hessian, line_search, solve), are the body of a function that
// warp_solver.py compiles into a Warp kernel; hence the classes in a function, and macros for what they cannot have.
//
// A CUDA warp solves one world: `for (i = lane; i < n; i += LANES)`, LANES = 32. On Warp's CPU device one thread runs
// the same source with LANES = 1. What the iteration touches lies in shared memory (on the CPU: on the stack).
//
// Constants from Python: NV, NV_PAD (dofs, columns of J in memory), NJMAX, ELLIPTIC, WARMSTART, ITERATIONS,
// LS_ITERATIONS. Worlds of more than MORE_THAN and at most ROWS constraint rows are solved; J_SHARED: J is held in
// shared memory, not read from efc.J.

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
constexpr int PER_LANE = (NV + LANES) / LANES;  // rows of the Cholesky factor a lane owns; row NV is the gradient
constexpr int CONE_ROWS = ELLIPTIC ? ROWS : 1;
constexpr float MINVAL = 1e-15f;
constexpr float NOISE = 8.0f * 1.1920929e-07f;  // rounding of a line search's derivative against its gross terms

enum Kind { EQUALITY, FRICTION_DOF, FRICTION_TENDON, INEQUALITY, CONE_FIRST, CONE_NEXT, CUT };
enum State { SATISFIED, QUADRATIC, LINEARNEG, LINEARPOS, CONE };  // mjtConstraintState

struct Workspace {
    float J[J_SHARED ? ROWS * STRIDE : 1], M[BLOCKS * BLOCK * STRIDE], L[(BLOCKS * BLOCK + 1) * STRIDE];
    float qacc[NV], Ma[NV], smooth[NV], qfrc[NV], search[NV], Mv[NV], inverse[NV];
    float D[ROWS], loss[ROWS], width[ROWS];  // width: half of the quadratic zone of a friction loss
    float jar[ROWS], jv[ROWS], force[ROWS];  // J a - aref, J search
    float scale[CONE_ROWS], quad[CONE_ROWS][3];  // friction coefficients; what update_cone and prepare_cones leave
    int kind[ROWS], link[ROWS], state[ROWS];  // link: dim of CONE_FIRST, first row of CONE_NEXT, dof of FRICTION_DOF
};

NEWTON_SHARED Workspace shared_workspace;

struct World {
    Workspace& w;
    const float* J;
    int lane, ne, nefc;

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
            const int friction = type[r] == TYPE_FRICTION_DOF ? FRICTION_DOF : FRICTION_TENDON;
            w.kind[r] = r < ne ? EQUALITY : r < ne + nf ? friction : INEQUALITY;
            if (ELLIPTIC) w.scale[r] = 0.0f;
        }
        NEWTON_SYNC();
    }

    // Rows of elliptic contacts; a contact that was cut at njmax takes no part.
    CUDA_CALLABLE void load_cones(
        const int* type, const int* dims, const int* address, int stride, const float* frictions, float impratio_invsqrt
    )
    {
        NEWTON_LOOP (int r = lane; r < nefc; r += LANES) {
            if (w.kind[r] != INEQUALITY || type[r] != TYPE_CONTACT_ELLIPTIC) continue;
            const int contact = w.link[r], dim = dims[contact], first = address[contact * stride], k = r - first;
            const float* friction = frictions + contact * 5;
            w.kind[r] = first + dim > nefc ? CUT : k == 0 ? CONE_FIRST : CONE_NEXT;
            w.link[r] = k == 0 ? dim : first;
            w.scale[r] = k == 0 ? friction[0] * impratio_invsqrt : friction[k - 1];
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
        NEWTON_LOOP (int i = lane; i < NV; i += LANES) {
            motion += 0.5f * (w.Ma[i] - w.smooth[i]) * (w.qacc[i] - w.search[i]);
        }
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
};
