/* The vendor and the family of this CPU. The cost model has measured rates for each vendor and family. */
#ifndef FASTCONV_CPU_H
#define FASTCONV_CPU_H

#include <string.h>

#if (defined(__x86_64__) || defined(__i386__)) && (defined(__GNUC__) || defined(__clang__))
#include <cpuid.h>
#define FC_CPUID 1
#elif defined(_MSC_VER) && (defined(_M_X64) || defined(_M_IX86))
#include <intrin.h>
#define FC_CPUID 2
#else
#define FC_CPUID 0
#endif

enum { FC_VENDOR = 12 };

/* Set `answer` to the registers eax, ebx, ecx and edx of cpuid(leaf), or to zeros if the CPU does not support the
 * leaf. */
static inline void fc_cpuid(unsigned leaf, unsigned answer[4])
{
    memset(answer, 0, 4 * sizeof *answer);
#if FC_CPUID == 1
    __get_cpuid(leaf, &answer[0], &answer[1], &answer[2], &answer[3]);
#elif FC_CPUID == 2
    int found[4];
    __cpuid(found, 0);
    if ((unsigned)found[0] >= leaf) {
        __cpuid(found, (int)leaf);
        memcpy(answer, found, sizeof found);
    }
#else
    (void)leaf;
#endif
}

/* Set `vendor` to the vendor of this CPU, and return the family of this CPU. For a CPU without cpuid, the vendor is
 * "generic", and the family is 0. */
static inline int fc_cpu(char vendor[FC_VENDOR + 1])
{
    unsigned name[4], version[4];
    int family;
    memset(vendor, 0, FC_VENDOR + 1);
    fc_cpuid(0, name);
    fc_cpuid(1, version);
    family = (int)(version[0] >> 8 & 0xf);
    if (family == 0xf) /* Family 15 means that a second field has to be added. */
        family += (int)(version[0] >> 20 & 0xff);
    memcpy(vendor, &name[1], 4);
    memcpy(vendor + 4, &name[3], 4);
    memcpy(vendor + 8, &name[2], 4);
    if (!vendor[0] || !family) {
        strcpy(vendor, "generic");
        family = 0;
    }
    return family;
}

#endif /* FASTCONV_CPU_H */
