// The iteration, and the world's way in and out.

struct Solver : LineSearch {
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
            const bool still = step.alpha == 0.0f || gradient_norm < tolerance || (gain > 0.0f && gain < tolerance);
            if (ITERATIONS == 0 || (iteration > 0 && still)) return iteration;
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
const int* type = &wp::index(problem.efc_type, world, 0);
const float tolerance = wp::index(problem.tolerance, world % problem.tolerance.shape[0]);
const float ls_tolerance = wp::index(problem.ls_tolerance, world % problem.ls_tolerance.shape[0]);
const float* jacobian = &wp::index(problem.efc_J, world, 0, 0);
Solver solver { { { { shared_workspace, jacobian, lane, wp::min(problem.ne.data[world], rows), rows } } } };
solver.load_rows(
    &wp::index(problem.efc_D, world, 0), &wp::index(problem.efc_frictionloss, world, 0), type,
    &wp::index(problem.efc_id, world, 0), problem.nf.data[world]
);
if (ELLIPTIC) {
    solver.load_cones(
        type, problem.contact_dim.data, problem.contact_efc_address.data, problem.contact_efc_address.shape[1],
        reinterpret_cast<const float*>(problem.contact_friction.data),
        wp::index(problem.impratio_invsqrt, world % problem.impratio_invsqrt.shape[0])
    );
}
const float trace = solver.load_M(
    &wp::index(problem.M, world, 0), problem.M_row.data, problem.M_column.data, problem.M_column.shape[0]
);
solver.copy(&wp::index(problem.qfrc_smooth, world, 0), shared_workspace.smooth, NV);
solver.start(
    &wp::index(problem.qacc_smooth, world, 0), &wp::index(problem.qacc_warmstart, world, 0),
    &wp::index(problem.efc_aref, world, 0)
);
int overflowed = 0;
const int niter = solver.iterate(tolerance, ls_tolerance, trace, overflowed);
solver.copy(shared_workspace.qacc, &wp::index(problem.qacc, world, 0), NV);
solver.copy(shared_workspace.Ma, &wp::index(problem.efc_Ma, world, 0), NV);
solver.copy(shared_workspace.qfrc, &wp::index(problem.qfrc_constraint, world, 0), NV);
solver.copy(shared_workspace.force, &wp::index(problem.efc_force, world, 0), rows);
NEWTON_LOOP (int r = lane; r < rows; r += LANES) {
    wp::index(problem.efc_state, world, r) = shared_workspace.state[r];
}
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
