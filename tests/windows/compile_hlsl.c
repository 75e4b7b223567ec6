// Compiles HLSL files with Microsoft's compiler, d3dcompiler_47.dll, which lies beside this program or in the system.
//
// usage: compile_hlsl PROFILE FILE...      (PROFILE: cs_5_0 or cs_5_1; a FILE is called ANYTHING.ENTRY_POINT.hlsl)
//
// Prints every error and warning, and a count. The exit code is 1 where there was any.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define COBJMACROS
#include <d3dcompiler.h>

typedef HRESULT(WINAPI *Compile)(LPCVOID, SIZE_T, LPCSTR, const D3D_SHADER_MACRO *, ID3DInclude *, LPCSTR, LPCSTR, UINT, UINT,
                                 ID3DBlob **, ID3DBlob **);

static char *read_file(const char *path, size_t *length)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return NULL;
    fseek(file, 0, SEEK_END);
    *length = ftell(file);
    rewind(file);
    char *text = malloc(*length + 1);
    *length = fread(text, 1, *length, file);
    fclose(file);
    return text;
}

int main(int count, char **arguments)
{
    HMODULE library = LoadLibraryA("d3dcompiler_47.dll");
    Compile compile = library ? (Compile)(void *)GetProcAddress(library, "D3DCompile") : NULL;
    if (!compile || count < 3) {
        fprintf(stderr, compile ? "usage: compile_hlsl PROFILE FILE...\n" : "there is no d3dcompiler_47.dll\n");
        return 2;
    }
    char path[MAX_PATH];
    GetModuleFileNameA(library, path, sizeof path);
    printf("%s, %s\n", path, arguments[1]);
    int failed = 0, warned = 0, compiled = 0;
    for (int i = 2; i < count; i++) {
        size_t length;
        char *text = read_file(arguments[i], &length);
        char name[512];
        snprintf(name, sizeof name, "%s", arguments[i]);
        char *end = strrchr(name, '.');
        if (!text || !end) {
            fprintf(stderr, "%s cannot be read\n", arguments[i]);
            return 2;
        }
        *end = 0;
        const char *entry = strrchr(name, '.');
        ID3DBlob *code = NULL, *said = NULL;
        DWORD start = GetTickCount();
        // The flags that wgpu gives: strict, and the highest level is its default.
        HRESULT result = compile(text, length, arguments[i], NULL, NULL, entry ? entry + 1 : "main", arguments[1],
                                 D3DCOMPILE_ENABLE_STRICTNESS, 0, &code, &said);
        DWORD took = GetTickCount() - start;
        if (FAILED(result)) {
            failed++;
            printf("%s: error %08lx\n", arguments[i], (unsigned long)result);
        } else {
            compiled++;
            if (took > 2000)
                printf("%s: %lu ms\n", arguments[i], (unsigned long)took);
        }
        if (said) {
            warned += SUCCEEDED(result);
            printf("%s:\n%s\n", arguments[i], (const char *)ID3D10Blob_GetBufferPointer(said));
            ID3D10Blob_Release(said);
        }
        if (code)
            ID3D10Blob_Release(code);
        free(text);
        fflush(stdout);
    }
    printf("%d compiled, %d of them with warnings, %d failed\n", compiled, warned, failed);
    return failed || warned;
}
