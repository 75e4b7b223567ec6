// Random bytes for Rust's standard library under Wine before 8.18, which has no bcryptprimitives.dll: a DLL to put beside the
// program under test. Never for Windows, which has its own.
#include <stdbool.h>
#include <stddef.h>
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(PVOID buffer, ULONG length); // RtlGenRandom, in advapi32

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE buffer, SIZE_T length)
{
    return SystemFunction036(buffer, (ULONG)length);
}
