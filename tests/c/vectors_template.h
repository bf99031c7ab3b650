/* Every shuffle and every mask of one dtype and instruction set, element by element. */
#include "simd/lanes.h"

static void FC_N(run)(int dtype, int isa)
{
    FC_T a[FC_VL], b[FC_VL], got[FC_VL], square[FC_TL * FC_TL], pairs[2 * FC_VL];
    int32_t places[FC_VL];
    FC_L lanes[FC_VL];
    FC_N(fc_t) rows[FC_TL];
    FC_V va, vb;
    FC_I mask;
    int i, j;
    for (i = 0; i < FC_VL; i++) {
        a[i] = pairs[i] = (FC_T)i;
        b[i] = pairs[FC_VL + i] = (FC_T)(FC_VL + i);
    }
    va = FC_N(fc_load)(a);
    vb = FC_N(fc_load)(b);
    FC_N(fc_store)(got, FC_N(fc_even_lanes)(va, vb));
    for (i = 0; i < FC_VL; i++)
        same("evens", dtype, isa, (double)got[i], (double)pairs[FC_VL > 1 ? 2 * i : 0]);
    FC_N(fc_store)(got, FC_N(fc_odd_lanes)(va, vb));
    for (i = 0; i < FC_VL; i++)
        same("odds", dtype, isa, (double)got[i], (double)pairs[2 * i + 1]);
    FC_N(fc_store)(got, FC_N(fc_interleave_lower_lanes)(va, vb));
    for (i = 0; i < FC_VL; i++)
        same("mix_low", dtype, isa, (double)got[i], (double)(i % 2 ? b[i / 2] : a[i / 2]));
    FC_N(fc_store)(got, FC_N(fc_interleave_upper_lanes)(va, vb));
    for (i = 0; i < FC_VL; i++)
        same("mix_high", dtype, isa, (double)got[i],
             (double)(FC_VL == 1 || i % 2 ? b[FC_VL / 2 + i / 2] : a[FC_VL / 2 + i / 2]));

    for (i = 0; i < FC_TL * FC_TL; i++)
        square[i] = (FC_T)i;
    for (i = 0; i < FC_TL; i++)
        rows[i] = *(const FC_N(fc_tu) *)(square + i * FC_TL);
    FC_N(fc_transpose)(rows);
    for (i = 0; i < FC_TL; i++)
        *(FC_N(fc_tu) *)(square + i * FC_TL) = rows[i];
    for (i = 0; i < FC_TL; i++)
        for (j = 0; j < FC_TL; j++)
            same("transpose", dtype, isa, (double)square[i * FC_TL + j], (double)(j * FC_TL + i));

    a[0] = (FC_T)NAN;
    va = FC_N(fc_load)(a);
    vb = FC_N(fc_broadcast)((FC_T)(FC_VL / 2));
    mask = FC_N(fc_replaces_maximum)(vb, va, 0);
    FC_N(fc_store)(got, FC_N(fc_select)(mask, vb, va));
    for (i = 1; i < FC_VL; i++)
        same("the larger", dtype, isa, (double)got[i], (double)(i < FC_VL / 2 ? FC_VL / 2 : i));
    mask = FC_N(fc_replaces_maximum)(va, vb, 1);
    FC_N(fc_store)(got, FC_N(fc_select)(mask, va, vb));
    same("NaN is taken", dtype, isa, (double)got[0], (double)NAN);
    same("any of one", dtype, isa, FC_N(fc_any)(FC_N(fc_is_nan)(va)), 1);
    same("any of none", dtype, isa, FC_N(fc_any)(FC_N(fc_is_nan)(vb)), 0);

    FC_N(fc_store_int32)(places, FC_N(fc_iota)() + FC_N(fc_broadcast_lanes)(7));
    for (i = 0; i < FC_VL; i++)
        same("places", dtype, isa, places[i], 7 + i);
    *(FC_N(fc_iu) *)lanes = FC_N(fc_load_int32)(places);
    for (i = 0; i < FC_VL; i++)
        same("lanes of places", dtype, isa, (double)lanes[i], 7 + i);
    mask = FC_N(fc_less)(FC_N(fc_load_lanes)(lanes), FC_N(fc_broadcast_lanes)(8));
    *(FC_N(fc_iu) *)lanes = mask;
    for (i = 0; i < FC_VL; i++)
        same("less", dtype, isa, (double)lanes[i], i ? 0 : -1);
}

const checks_of FC_N(checks_of) = {.run = FC_N(run)};
