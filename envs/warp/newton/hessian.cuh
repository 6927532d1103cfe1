// Gradient, Hessian and Newton step.

struct Hessian : World {
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
};
